"""Settings that would make a run slower on this machine are refused before anything is written."""

import platform

import pytest
import torch
from toys.policies import build_cvpo
from toys.runs import resumable_config, run_killed
from toys.settings import small_config

from fsrl_ext.experiment import resume, run
from fsrl_ext.experiment.training import machine

X86 = "processor\t: 0\nflags\t\t: fpu avx2 avx512f {}\n"
ARM = "processor\t: 0\nFeatures\t: fp asimd {}\n"


@pytest.fixture
def processor(monkeypatch, tmp_path):
    """Replaces the machine's processor by one that Linux describes so."""

    def describe(text):
        for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"):
            monkeypatch.setattr(torch.cpu, name, lambda: False, raising=False)
        path = tmp_path / "cpuinfo"
        path.write_text(text)
        monkeypatch.setattr(machine, "CPU_INFO", path)

    return describe


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        (X86.format("avx512_bf16"), True),
        (X86.format("amx_bf16 amx_tile"), True),
        (X86.format("avx512_vnni"), False),
        (ARM.format("bf16 i8mm"), True),
        (ARM.format("asimdhp"), False),
        ("processor\t: 0\n", False),
    ],
)
def test_the_processors_flags_tell(processor, text, answer):
    processor(text)
    assert machine.multiplies_bfloat16() is answer


def test_what_torch_says_counts_too(processor, monkeypatch, tmp_path):
    processor(X86.format(""))
    monkeypatch.setattr(machine, "CPU_INFO", tmp_path / "no file")
    assert not machine.multiplies_bfloat16()
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: True, raising=False)
    assert machine.multiplies_bfloat16()


@pytest.mark.skipif(
    platform.system() != "Linux" or not hasattr(torch.cpu, "_is_avx512_bf16_supported"),
    reason="only one of the two says something",
)
def test_torch_and_linux_agree_on_this_machine():
    flags = machine.CPU_INFO.read_text()
    assert torch.cpu._is_avx512_bf16_supported() == ("avx512_bf16" in flags)


def test_bfloat16_is_refused_in_one_line_unless_forced(processor, tmp_path):
    processor(X86.format("avx512_vnni"))
    config = small_config("cvpo", estep_precision="bfloat16")
    with pytest.raises(ValueError, match=r"estep_precision must be 'float32' .*'forced-bfloat16'") as error:
        run(config, out=tmp_path / "runs", show_progress=False)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "runs").exists()
    machine.check_machine(small_config("cvpo", estep_precision="forced-bfloat16"))
    machine.check_machine(small_config("cvpo"))
    machine.check_machine(small_config("cpo"))  # has no such setting
    machine.check_machine(small_config("cvpo", estep_precision="bfloat16", device="cuda"))
    processor(X86.format("avx512_bf16"))
    machine.check_machine(config)


def test_ray_workers_without_ray_are_refused(monkeypatch, tmp_path):
    monkeypatch.setattr(machine.importlib.util, "find_spec", lambda name: None)
    config = small_config("sac_lag", worker_type="ray", workers=2)
    with pytest.raises(
        ImportError, match=r"needs Ray, which is not installed: pip install 'fsrl_ext\[ray\]'"
    ):
        run(config, out=tmp_path / "runs", show_progress=False)
    assert not (tmp_path / "runs").exists()


def test_a_run_from_another_machine_goes_on_and_says_that_it_is_slow(processor, tmp_path):
    processor(X86.format("avx512_bf16"))
    folder = run_killed(resumable_config("cvpo", estep_precision="bfloat16"), 800, tmp_path)
    processor(X86.format(""))
    with pytest.warns(UserWarning, match="goes on slowly here: its estep_precision"):
        assert resume(folder, show_progress=False).status == "finished"


def test_forced_bfloat16_computes_what_bfloat16_does():
    policies = [build_cvpo(estep_precision=x) for x in ("bfloat16", "forced-bfloat16", "float32")]
    assert policies[0]._estep_precision == policies[1]._estep_precision == {"hidden_dtype": torch.bfloat16}
    assert policies[2]._estep_precision == {}
