"""Devices are found without torch, and one run at a time has each of them."""

import os

import pytest

from worker.devices import CPU, Device, NoDevice, describe, find, read_gpus
from worker.slots import free_slot, free_slots, worker_name

SMI = """#!/bin/sh
echo "0, GPU-aaaa, NVIDIA H100, 81559, 1024, 37"
echo "1, GPU-bbbb, NVIDIA H100, 81559, 0, [N/A]"
"""


@pytest.fixture
def two_gpus(tmp_path, monkeypatch):
    program = tmp_path / "bin" / "nvidia-smi"
    program.parent.mkdir()
    program.write_text(SMI)
    program.chmod(0o700)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)


@pytest.fixture
def no_gpu(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))


def test_every_gpu_is_a_place_for_one_run(two_gpus):
    assert [(device.key, device.uuid) for device in find("auto")] == [("gpu-0", "GPU-aaaa"), ("gpu-1", "GPU-bbbb")]
    assert [device.key for device in find("1")] == ["gpu-1"]
    assert find("cpu") == [CPU]


def test_without_a_gpu_the_cpu_is_the_place(no_gpu):
    assert find("auto") == [CPU]
    assert read_gpus() == []


@pytest.mark.parametrize("wanted", ["7", "0,7", "gpu", ","])
def test_a_gpu_that_is_not_there_is_named_in_a_sentence(two_gpus, wanted):
    with pytest.raises(NoDevice, match="the GPUs of this machine are: 0, 1"):
        find(wanted)


def test_a_worker_that_was_given_some_gpus_takes_no_others(two_gpus, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    assert [device.key for device in find("auto")] == ["gpu-1"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-aaaa")
    assert [device.key for device in find("auto")] == ["gpu-0"]


def test_the_page_is_told_how_busy_a_device_is(two_gpus):
    first, second = describe(find("auto"))
    assert first == {
        "key": "gpu-0", "name": "NVIDIA H100", "memory_used": 1024 << 20, "memory_total": 81559 << 20, "utilisation": 0.37
    }  # fmt: skip
    assert second["utilisation"] is None
    (cpu,) = describe([CPU])
    assert 0 < cpu["memory_used"] < cpu["memory_total"]
    assert 0 <= cpu["utilisation"] <= 1


def test_a_second_worker_on_the_same_home_has_another_name(settings):
    with worker_name(settings) as first, worker_name(settings) as second:
        assert (first.own, second.own) == ("worker-1", "worker-2")
    with worker_name(settings) as again:
        assert again.own == "worker-1"


def test_a_gpu_is_held_against_other_workers_and_a_cpu_is_not(settings):
    gpu = Device("gpu-0", "GPU", "GPU-aaaa")
    with worker_name(settings) as first, worker_name(settings) as second:
        with free_slot(first, [gpu]) as taken:
            assert taken == gpu
            assert free_slots(second, [gpu, CPU]) == 1
            with free_slot(second, [gpu]) as nothing:
                assert nothing is None
        assert free_slots(second, [gpu]) == 1
        with free_slot(first, [CPU]) as one, free_slot(second, [CPU]) as other, free_slot(first, [CPU]) as third:
            assert (one, other, third) == (CPU, CPU, None)
