"""What must answer at once imports no torch. Each import runs in a process of its own."""

import subprocess
import sys

import pytest

import rankwise

LIGHT = (
    "rankwise",
    "rankwise.allocation",
    "rankwise.cli.main",
    "rankwise.ledger",
    "rankwise.records",
    "rankwise.reporting",
    "rankwise.statistics",
    "rankwise.study",
)


def modules_after(statement: str) -> set[str]:
    code = f"{statement}\nimport sys\nprint(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split())


@pytest.mark.parametrize("module", LIGHT)
def test_a_light_module_does_not_import_torch(module):
    assert not modules_after(f"import {module}") & {"torch", "transformers", "peft", "datasets"}


def test_torch_would_have_been_noticed():
    assert "torch" in modules_after("import torch")


def test_asking_for_help_does_not_import_torch():
    statement = "from rankwise.cli.main import main\ntry:\n    main()\nexcept SystemExit:\n    pass"
    assert "torch" not in modules_after(f"import sys\nsys.argv = ['rankwise', '--help']\n{statement}")


@pytest.mark.parametrize("name", rankwise.__all__)
def test_every_public_name_is_there(name):
    assert getattr(rankwise, name) is not None


def test_an_unknown_public_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'rank_wise'"):
        _ = rankwise.rank_wise


def test_no_hint_about_optional_kernels_reaches_the_user_and_other_warnings_do():
    """bitsandbytes, which PEFT imports, would print it in every command on some processors."""
    logger = "logging.getLogger('bitsandbytes.backends.cpu.ops')"
    hint = f"{logger}.warning('Failed to load CPU gemm_4bit_forward from kernels-community: %s', 1)"
    code = f"import logging\nimport rankwise\n{hint}\n{logger}.warning('something else')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr == "something else\n"
