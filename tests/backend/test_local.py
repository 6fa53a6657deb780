"""Which GPU each rank takes."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from ranks import on_ranks

from xpnet.backend import local
from xpnet.backend.local import Place, check_places, in_words, local_device, select_together
from xpnet.errors import DeviceError, UsageError


@pytest.mark.parametrize(
    ("device", "rank", "size", "gpus", "expected"),
    [
        ("cuda", 2, 4, 4, "cuda:2"),
        ("cuda", 1, 2, 8, "cuda:1"),
        ("auto", 1, 2, 2, "cuda:1"),
        ("cuda", 3, 4, 1, "cuda:0"),  # each rank sees its own
        ("cuda", 0, 1, 4, "cuda"),
        ("cuda:3", 0, 1, 4, "cuda:3"),  # one rank on each machine
        ("cpu", 1, 2, 4, "cpu"),
        ("cuda", 1, 2, 0, "cuda"),  # what is missing, the library says
        ("auto", 1, 2, 0, "auto"),
    ],
)
def test_a_rank_takes_the_gpu_of_its_number(
    device: str, rank: int, size: int, gpus: int, expected: str
) -> None:
    assert local_device(device, rank, size, gpus) == expected


@pytest.mark.parametrize(
    ("device", "gpus", "words"),
    [
        ("cuda", 2, "4 ranks and 2 GPUs; expected a GPU for each"),
        ("cuda:1", 8, "cuda:1 is one GPU"),
    ],
)
def test_ranks_do_not_share_a_gpu(device: str, gpus: int, words: str) -> None:
    with pytest.raises(DeviceError, match=words):
        local_device(device, 0, 4, gpus)


def test_two_ranks_on_one_gpu_are_found() -> None:
    one, other = Place("a", "cuda:0", "H100", "0000:01:00.0"), Place("a", "cuda:0", "H100", "")
    check_places([one, one._replace(machine="b"), one._replace(bus="0000:02:00.0"), other, other])
    with pytest.raises(DeviceError, match=r"ranks 1 and 3 are on one GPU, cuda:0 \(H100\) of b"):
        check_places([one, *[one._replace(machine="b"), other] * 2])
    assert in_words([one]) == "rank 0 on cuda:0 of a (H100)"


def opening(monkeypatch: pytest.MonkeyPatch, gpus: int, broken: tuple[str, ...] = ()) -> None:
    """Let `select` open what it is asked for, but for some devices."""

    def select(device: str, library: Any, dtype: str, **options: Any) -> Any:
        if device in broken:
            raise DeviceError(f"{device} is broken; mend it")
        return SimpleNamespace(device=device, library="cupy", device_name="GPU", note="")

    monkeypatch.setattr(local, "select", select)
    monkeypatch.setattr(local, "has_gpu", lambda: True)
    monkeypatch.setitem(local._COUNTS, "cupy", lambda: gpus)
    monkeypatch.setitem(local._BUS, "cupy", lambda index: f"bus {index}")


def devices(size: int, device: str) -> list[tuple[str, str]]:
    def work(group: Any) -> Any:
        backend, places = select_together(group, device)
        assert [place.device for place in places][group.rank] == backend.device
        return backend.device, backend.note

    return on_ranks(size, work)


@pytest.mark.parametrize("device", ["cuda", "auto"])
def test_each_rank_opens_its_own(monkeypatch: pytest.MonkeyPatch, device: str) -> None:
    opening(monkeypatch, 3)
    assert devices(3, device) == [("cuda:0", ""), ("cuda:1", ""), ("cuda:2", "")]


def test_auto_is_cpu_for_all_if_one_has_no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    opening(monkeypatch, 3, ("cuda:1",))
    note = "not on cuda: rank 1: cuda:1 is broken"
    assert devices(3, "auto") == [("cpu", note)] * 3
    opening(monkeypatch, 2)
    found = devices(3, "auto")
    assert {device for device, _ in found} == {"cpu"}
    assert "3 ranks and 2 GPUs" in found[0][1]


def test_auto_is_cpu_if_all_see_the_same_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    opening(monkeypatch, 1)
    assert [device for device, _ in devices(2, "auto")] == ["cpu", "cpu"]
    with pytest.raises(DeviceError, match="ranks 0 and 1 are on one GPU"):
        devices(2, "cuda")


def test_all_ranks_fail_if_one_does(monkeypatch: pytest.MonkeyPatch) -> None:
    opening(monkeypatch, 2, ("cuda:0",))

    def work(group: Any) -> str:
        with pytest.raises((DeviceError, RuntimeError), match="cuda:0 is broken") as raised:
            select_together(group, "cuda")
        return type(raised.value).__name__

    assert on_ranks(2, work) == ["DeviceError", "RankError"]


def test_the_processor_s_libraries_stay_there() -> None:
    def work(group: Any) -> tuple[str, str]:
        backend, _ = select_together(group, "auto", "numpy")
        with pytest.raises(UsageError, match="runs on the CPU only"):
            select_together(group, "cuda", "numpy")
        return backend.library, backend.note

    assert on_ranks(2, work) == [("numpy", "")] * 2
