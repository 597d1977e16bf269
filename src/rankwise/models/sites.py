"""Find the linear layers of a decoder that can be adapted, and tell attention from MLP by the model's structure.

"Forward order" is the order in which the model registers its modules: block after block, and inside a block as its
class declares them. For the decoders of Transformers that is the order in which they run, up to layers that read the
same input: Llama declares q, k, v, o, gate, up, down; OPT declares k before v before q.
"""

import difflib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from torch import nn
from transformers.pytorch_utils import Conv1D

from rankwise.allocation.sites import Site, SiteKind
from rankwise.errors import ModelError

KEYWORDS = ("all-linear", "attention", "mlp")
"""Of layers inside the blocks."""
HEAD = "head"
"""The output head, whatever a family calls it."""

# A decoder used alone never runs its cross-attention, so adapters there would be dead weight: those stay unplaced.
CROSS_ATTENTION = re.compile(r"encoder_attn|cross_?att", re.IGNORECASE)
ATTENTION = re.compile(r"attn|attention", re.IGNORECASE)
MLP = re.compile(r"mlp|ffn|feed_?forward|expert|sparse_moe|^ff$", re.IGNORECASE)
MLP_LEAF = re.compile(r"fc\d|fc_in|fc_out|lin\d")
"""Names of feed-forward layers that hang in the block itself, as in OPT, XGLM and BioGPT."""


def find_sites(model: nn.Module, targets: str | Sequence[str] = "all-linear") -> tuple[Site, ...]:
    """The linear layers that `targets` names, in forward order (see the head of this file).

    Linear layers are `nn.Linear` and its subclasses (bitsandbytes' 8-bit and 4-bit layers are such), and GPT-2's
    `Conv1D`. Only `in_features` and `out_features` are read, so the meta device and packed 4-bit weights are fine.

    Args:
        model: A causal language model, not yet adapted.
        targets: `all-linear`, `attention` and `mlp` choose among the layers inside the decoder blocks, never among
            those outside. `head` is the output head; where it shares the embeddings' weights, an adapter changes the
            head alone. Anything else is a module name:
            the last part (`q_proj`), the end of a name (`self_attn.q_proj`), the whole name, or a regular expression
            that matches the whole name. Several are united.

    Raises:
        ModelError: A target matches nothing or something that is not linear, or a keyword is used on a model whose
            layers cannot be told apart.
    """
    wanted = (targets,) if isinstance(targets, str) else tuple(targets)
    if not wanted:
        raise ModelError(f"targets: the list is empty. Name modules, or use one of {', '.join((*KEYWORDS, HEAD))}.")
    layers = tuple(_linear_layers(model))
    keywords = [target for target in wanted if target in KEYWORDS]
    if keywords:
        _check_tellable(model, layers, keywords)
    chosen = {layer.site.name for target in wanted for layer in _select(model, layers, target)}
    return tuple(layer.site for layer in layers if layer.site.name in chosen)


def find_blocks(model: nn.Module) -> list[nn.Module]:
    """The decoder blocks in forward order; empty where the model has no list of them."""
    return [block for stack in _block_stacks(model) for block in model.get_submodule(stack).children()]


@dataclass(frozen=True)
class _Layer:
    site: Site
    in_block: bool


def _linear_layers(model: nn.Module) -> Iterator[_Layer]:
    """All linear layers but none of an adapter. Those outside the blocks count as part of the last block before."""
    stacks = _block_stacks(model)
    inside = re.compile("|".join(rf"{re.escape(stack)}\.(\d+)\." for stack in stacks[:1]) or r"(?!)")
    block = 0
    for name, module in model.named_modules():
        features = _features(module)
        if features is None:
            continue
        match = inside.match(name)
        block = int(match[1]) if match else block
        kind = _classify(model, name, name[match.end() :]) if match else "other"
        site = Site(name=name, kind=kind, layer=block, in_features=features[0], out_features=features[1])
        yield _Layer(site, in_block=match is not None)


def _features(module: nn.Module) -> tuple[int, int] | None:
    """Inputs and outputs of a linear layer; None for any other module."""
    if isinstance(module, nn.Linear):
        return module.in_features, module.out_features
    if isinstance(module, Conv1D):
        return module.nx, module.nf
    return None


def _block_stacks(model: nn.Module) -> list[str]:
    """Names of the lists of decoder blocks: one in an ordinary decoder.

    A model with an image or audio tower has more lists, so the text decoder is asked for first.
    """
    decoder = getattr(model, "get_decoder", lambda: model)()
    root = next((name for name, module in model.named_modules() if module is decoder), "")
    return _stacks_under(model, root) or _stacks_under(model, "")


def _stacks_under(model: nn.Module, root: str) -> list[str]:
    """The outermost module lists below `root` that contain linear layers."""
    stacks: list[str] = []
    for name, module in model.get_submodule(root).named_modules(prefix=root):
        nested = name.startswith(tuple(f"{stack}." for stack in stacks))
        if isinstance(module, nn.ModuleList) and not nested and any(_features(child) for child in module.modules()):
            stacks.append(name)
    return stacks


def _classify(model: nn.Module, name: str, path: str) -> SiteKind:
    """Attention or MLP, by the innermost module around the layer whose name, or else class, says so.

    Args:
        model: The whole model.
        name: Full name of the layer.
        path: Its name inside the block, such as `self_attn.q_proj`.
    """
    if CROSS_ATTENTION.search(path):
        return "other"
    parts = path.split(".")
    for _ in parts[:-1]:
        name = name.rpartition(".")[0]
        kind = _kind_of_word(name.rpartition(".")[2]) or _kind_of_word(type(model.get_submodule(name)).__name__)
        if kind is not None:
            return kind
    return "mlp" if len(parts) == 1 and MLP_LEAF.fullmatch(path) else "other"


def _kind_of_word(word: str) -> SiteKind | None:
    if ATTENTION.search(word):
        return "attention"
    return "mlp" if MLP.search(word) else None


def _check_tellable(model: nn.Module, layers: Sequence[_Layer], keywords: Sequence[str]) -> None:
    """Refuse the keywords where they would quietly leave out, or mix up, a part of the model."""
    advice = "Name the modules in targets instead, such as [q_proj, v_proj]"
    stacks = _block_stacks(model)
    if len(stacks) != 1:
        found = f"{len(stacks)} lists of blocks ({', '.join(stacks)})" if stacks else "no list of repeated blocks"
        raise ModelError(f"targets: {type(model).__name__} has {found}, so depth is not defined in it. {advice}.")
    unplaced = [layer.site.name for layer in layers if layer.in_block and layer.site.kind == "other"]
    if unplaced:
        raise ModelError(
            f"targets: {_abbreviate(unplaced)} in {type(model).__name__} cannot be told to be attention or MLP, or are "
            f"cross-attention that a decoder alone never runs. {advice}; their kind is then `other`."
        )
    blocks = model.get_submodule(stacks[0]).named_parameters(prefix=stacks[0])
    fused = [name for name, weight in blocks if weight.ndim > 2 and min(weight.shape) > 1]
    if fused and any(keyword != "attention" for keyword in keywords):
        raise ModelError(
            f"targets: {type(model).__name__} keeps {_abbreviate(fused)} in arrays of more than two axes, which no "
            f"adapter of linear layers reaches, so `all-linear` and `mlp` would leave them out. {advice}, or use "
            "`attention`."
        )


def _abbreviate(names: Sequence[str]) -> str:
    """The distinct names with block numbers starred out: model.layers.*.mlp.experts.down_proj."""
    distinct = list(dict.fromkeys(re.sub(r"\.\d+(?=\.)", ".*", name) for name in names))
    return ", ".join(distinct[:8]) + (f" and {len(distinct) - 8} more" if len(distinct) > 8 else "")


def _select(model: nn.Module, layers: Sequence[_Layer], target: str) -> list[_Layer]:
    if target == "all-linear":
        found = [layer for layer in layers if layer.in_block]
    elif target in KEYWORDS:
        found = [layer for layer in layers if layer.site.kind == target]
    elif target == HEAD:
        head = getattr(model, "get_output_embeddings", lambda: None)()
        found = [layer for layer in layers if model.get_submodule(layer.site.name) is head]
    else:
        pattern = _compile(target)
        found = [layer for layer in layers if _matches(layer.site.name, target, pattern)]
        if not found:
            _refuse_other_module(model, target, pattern)
    if not found:
        raise _no_match(model, layers, target)
    return found


def _compile(target: str) -> re.Pattern[str]:
    try:
        return re.compile(target)
    except re.error as error:
        raise ModelError(
            f"targets: {target!r} is neither a module name nor a regular expression ({error}). "
            "As a regular expression, `any name that ends in _proj` is written `.*_proj`."
        ) from error


def _matches(name: str, target: str, pattern: re.Pattern[str]) -> bool:
    return name == target or name.endswith(f".{target}") or pattern.fullmatch(name) is not None


def _refuse_other_module(model: nn.Module, target: str, pattern: re.Pattern[str]) -> None:
    for name, module in model.named_modules():
        if name and _matches(name, target, pattern):
            raise ModelError(
                f"targets: {target!r} matches {name}, which is of class {type(module).__name__} and not a linear "
                "layer. Name linear layers; those inside a module M are matched by the regular expression `.*M\\..*`."
            )


def _no_match(model: nn.Module, layers: Sequence[_Layer], target: str) -> ModelError:
    leaves = list(dict.fromkeys(layer.site.leaf for layer in layers))
    close = difflib.get_close_matches(target.rpartition(".")[2], leaves, n=3, cutoff=0.5)
    guess = f"; did you mean {' or '.join(close)}?" if close else "."
    return ModelError(
        f"targets: {target!r} matches no linear layer of {type(model).__name__}{guess} Its layers are called "
        f"{', '.join(leaves[:20])}. "
        "Allowed are these names, full names, regular expressions over full names, and "
        f"{', '.join((*KEYWORDS, HEAD))}."
    )
