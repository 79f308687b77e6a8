"""Reports are read by their headers; what is not understood is an error."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from edgemix.errors import InputError
from edgemix.targets.fpga.reports import read_cosim, read_csynth, read_utilization


def save(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.write_text(text)
    return path


def test_real_reports_of_c_synthesis(shared_reports: Path) -> None:
    mlp = read_csynth(shared_reports / "hls4ml_mlp" / "myproject_csynth.rpt")
    assert (mlp.tool, mlp.top, mlp.part) == (
        "Vivado HLS 2020.1", "myproject", "xc7z020-clg400-1",
    )  # fmt: skip
    assert (mlp.clock_ns, mlp.estimated_ns, mlp.uncertainty_ns) == (5.0, 4.049, 0.62)
    assert (mlp.latency, mlp.latency_ns, mlp.interval) == ((10, 10), (50.0, 50.0), (8, 8))
    assert mlp.resources.used == {"bram": 0, "dsp": 73, "ff": 7969, "lut": 2532, "uram": 0}
    assert mlp.resources.available == {
        "bram": 280, "dsp": 220, "ff": 106400, "lut": 53200, "uram": 0,
    }  # fmt: skip
    assert [m.latency for m in mlp.modules] == [(7, 7), (2, 2)]
    assert mlp.modules[0].used == {"bram": 0, "dsp": 73, "ff": 7860, "lut": 2134, "uram": 0}
    xml = read_csynth(shared_reports / "hls4ml_mlp" / "myproject_csynth.xml")
    for field in ("top", "part", "clock_ns", "estimated_ns", "uncertainty_ns", "latency"):
        assert getattr(xml, field) == getattr(mlp, field)
    assert (xml.interval, xml.resources.used) == (mlp.interval, mlp.resources.used)
    cnn = read_csynth(shared_reports / "pruned_cnn" / "myproject_csynth.rpt")
    assert (cnn.part, cnn.latency, cnn.interval) == (
        "xcu250-figd2104-2L-e", (1044, 1044), (1028, 1028),
    )  # fmt: skip
    assert cnn.resources.used == {
        "bram": 100, "dsp": 5414, "ff": 52549, "lut": 245466, "uram": 0,
    }  # fmt: skip
    assert len(cnn.modules) == 16
    assert cnn.resources.share("lut") == 245466 / 1728000


def test_real_reports_of_logic_synthesis(shared_reports: Path) -> None:
    mlp = read_utilization(shared_reports / "hls4ml_mlp" / "vivado_synth.rpt")
    assert (mlp.design, mlp.part, mlp.state) == ("myproject", "7z020clg400-1", "Synthesized")
    assert mlp.resources.used == {"lut": 1526, "ff": 2428, "bram": 0, "dsp": 66}
    cnn = read_utilization(shared_reports / "pruned_cnn" / "vivado_synth.rpt")
    assert cnn.resources.used == {
        "lut": 123948, "ff": 43435, "bram": 84, "uram": 0, "dsp": 5386,
    }  # fmt: skip
    assert cnn.resources.available["uram"] == 1280


def test_columns_may_move_and_be_renamed(csynth_report: Callable[..., str], tmp_path: Path) -> None:
    text = csynth_report(
        tool="Vitis HLS", names=("BRAM_18K", "DSP", "FF", "LUT"), used=(1, 2, 3, 4)
    )
    found = read_csynth(save(tmp_path, "a_csynth.rpt", text))
    assert found.tool == "Vitis HLS 2020.1"
    assert found.resources.used == {"bram": 1, "dsp": 2, "ff": 3, "lut": 4}
    assert found.modules[0].interval == (7, 7)
    moved = csynth_report(names=("LUT", "FF", "DSP48E"), used=(5, 6, "~7"))
    assert read_csynth(save(tmp_path, "b_csynth.rpt", moved)).resources.used == {
        "lut": 5, "ff": 6, "dsp": 7,
    }  # fmt: skip


def test_a_latency_that_depends_on_data_is_none(
    csynth_report: Callable[..., str], tmp_path: Path
) -> None:
    found = read_csynth(save(tmp_path, "a_csynth.rpt", csynth_report(cycles=("?", "?"))))
    assert found.latency is None
    assert found.latency_ns is None


def test_a_clock_is_met_with_its_uncertainty(
    csynth_report: Callable[..., str], tmp_path: Path
) -> None:
    for estimated, met in ((8.75, True), (8.76, False)):
        text = csynth_report(estimated=estimated)
        assert read_csynth(save(tmp_path, "a_csynth.rpt", text)).meets_clock == met


def test_block_ram_counts_in_eighteen_kilobit(
    utilization_report: Callable[..., str], tmp_path: Path
) -> None:
    for family in ("Slice", "CLB"):
        found = read_utilization(save(tmp_path, "v.rpt", utilization_report(family=family)))
        assert found.resources.used == {"lut": 1526, "ff": 2428, "bram": 3, "dsp": 66}
        assert found.resources.available["bram"] == 280


def test_cosimulation(cosim_report: str, tmp_path: Path) -> None:
    found = read_cosim(save(tmp_path, "a_cosim.rpt", cosim_report))
    assert (found.passed, found.latency, found.interval) == (True, (19, 20), (4, 5))
    failed = cosim_report.replace("Pass", "Fail")
    assert not read_cosim(save(tmp_path, "a_cosim.rpt", failed)).passed
    none = re.sub(r"\n\|   Verilog.*", "", cosim_report)
    with pytest.raises(InputError, match="nothing was simulated"):
        read_cosim(save(tmp_path, "a_cosim.rpt", none))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("== Vivado HLS Report", "== Catapult Report"), "names neither Vivado HLS nor Vitis HLS"),
        (("DSP48E", "AIE"), "AIE"),
        (("== Utilization Estimates", "== Something else"), "no table Utilization Estimates"),
        (("Interval", "Throughput"), "Interval min"),
        (("10.00 ns", "10.00 h"), "no time: 10.00 h"),
        (("2532", "many"), "many"),
    ],
)
def test_what_is_not_understood_is_named(
    change: tuple[str, str], message: str, csynth_report: Callable[..., str], tmp_path: Path
) -> None:
    path = save(tmp_path, "a_csynth.rpt", csynth_report().replace(*change))
    with pytest.raises(InputError, match="a_csynth.rpt is not understood") as refused:
        read_csynth(path)
    assert message in refused.value.what


def test_a_report_cut_off_anywhere_is_an_error_or_complete(
    csynth_report: Callable[..., str], tmp_path: Path
) -> None:
    text = csynth_report()
    whole = read_csynth(save(tmp_path, "a_csynth.rpt", text))
    for end in range(0, len(text), 97):
        try:
            found = read_csynth(save(tmp_path, "a_csynth.rpt", text[:end]))
        except InputError:
            continue
        assert found.resources == whole.resources
        assert found.latency == whole.latency


def test_a_damaged_xml_is_an_error(tmp_path: Path) -> None:
    for text in ("", "<profile>", "<profile></profile>"):
        with pytest.raises(InputError, match="is not understood"):
            read_csynth(save(tmp_path, "a_csynth.xml", text))
    with pytest.raises(InputError, match="there is no report"):
        read_csynth(tmp_path / "none_csynth.xml")
