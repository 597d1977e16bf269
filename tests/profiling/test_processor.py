import pytest

from rankwise.profiling import processor


def test_the_first_model_name_of_the_file_counts(tmp_path, monkeypatch):
    file = tmp_path / "cpuinfo"
    file.write_text("processor\t: 0\nmodel name\t: Fast Chip @ 3 GHz\nmodel name\t: Other\n")
    monkeypatch.setattr(processor, "_CPUINFO", file)
    assert processor.processor_name() == "Fast Chip @ 3 GHz"


@pytest.mark.parametrize("content", [None, "Hardware : board\n"])
def test_where_the_file_says_nothing_the_platform_is_asked(content, tmp_path, monkeypatch):
    file = tmp_path / "cpuinfo"
    if content is not None:
        file.write_text(content)
    monkeypatch.setattr(processor, "_CPUINFO", file)
    monkeypatch.setattr("platform.processor", lambda: "arm")
    assert processor.processor_name() == "arm"
    monkeypatch.setattr("platform.processor", lambda: "")
    assert processor.processor_name() == "unknown"
