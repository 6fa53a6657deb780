"""PyTorch's sums over ranks on GPUs, with Gloo in NCCL's place, or a group that is pretended."""

from __future__ import annotations

import os
from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from ranks import on_ranks

torch: Any = pytest.importorskip("torch", reason="torch is not installed")

import torch.distributed as dist  # noqa: E402

from xpnet.backend import torch_ranks  # noqa: E402
from xpnet.errors import DeviceError  # noqa: E402
from xpnet.parallel import Group  # noqa: E402

pytestmark = pytest.mark.skipif(not dist.is_available(), reason="torch is built without ranks")


def test_ranks_meet_and_sum_in_one_message() -> None:
    messages: list[int] = []

    def work(group: Group) -> list[Any]:
        def make(store: Any) -> Any:
            gloo = dist.ProcessGroupGloo(store, group.rank, group.size, timedelta(seconds=30))

            def allreduce(tensors: list[Any]) -> Any:
                messages.append(group.rank)
                return gloo.allreduce(tensors)

            return SimpleNamespace(allreduce=allreduce)

        reduce = torch_ranks.packed_sum(torch_ranks.connected(group, make))
        given = [torch.full((2, 3), group.rank + 1.0).T, torch.tensor(group.rank * 1.0)]
        found = reduce(given)
        assert [a.shape for a in found] == [(3, 2), ()]
        assert given[0].tolist() == [[group.rank + 1.0] * 2] * 3
        return [a.tolist() for a in found]

    assert on_ranks(3, work) == [[[[6.0, 6.0]] * 3, 3.0]] * 3
    assert sorted(messages) == [0, 1, 2]


def test_a_rank_that_cannot_reach_rank_0_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch_ranks, "MEETING", timedelta(seconds=0.2))
    ranks: Any = SimpleNamespace(rank=1, size=2, local_size=1, first=lambda _: ("127.0.0.1", 9))
    with pytest.raises(DeviceError, match=r"torch on rank 1 cannot reach rank 0 at 127\.0\.0\.1"):
        torch_ranks.connected(ranks, lambda store: store)


def test_a_torch_without_nccl_is_refused_by_all_ranks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dist, "is_nccl_available", lambda: False)

    def work(group: Group) -> None:
        with pytest.raises(DeviceError, match="is built without it: install a CUDA build"):
            torch_ranks.nccl_sum(group, torch.device("cpu"))

    on_ranks(2, work)


def pretended(monkeypatch: pytest.MonkeyPatch, allreduce: Any) -> None:
    group = SimpleNamespace(allreduce=allreduce)
    monkeypatch.setattr(torch_ranks, "_nccl_group", lambda ranks: group)
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: False)


def test_what_nccl_refuses_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def allreduce(tensors: list[Any]) -> Any:
        raise dist.DistBackendError("NCCL error: unhandled\nand 9 more lines")

    ranks: Any = SimpleNamespace(rank=1, size=2)
    pretended(monkeypatch, allreduce)
    with pytest.raises(DeviceError) as raised:
        torch_ranks.nccl_sum(ranks, torch.device("cpu"))
    assert str(raised.value).startswith(
        "NCCL cannot sum on rank 1 of 2, cpu: NCCL error: unhandled;"
    )


def test_names_are_those_of_torch() -> None:
    """The class of NCCL's groups is there in CUDA builds only; its stub is in all."""
    stub = os.path.join(os.path.dirname(torch.__file__), "_C/_distributed_c10d.pyi")
    with open(stub) as file:
        text = file.read()
    start = text.index("class ProcessGroupNCCL(Backend):")
    words = " ".join(text[start : text.index("\nclass ", start + 1)].split())
    assert "def __init__( self, store: Store, rank: int, size: int, options: Options, )" in words
    assert "class Options(Backend.Options):" in words
    assert issubclass(dist.DistBackendError, dist.DistError)
    assert callable(torch.cuda.is_current_stream_capturing)
