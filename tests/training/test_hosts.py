"""The machines of a job, and what each process trains on."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from darkroom.base.errors import DarkroomError, UserError
from darkroom.config import Hyperparameters
from darkroom.data.dataset import Dataset
from darkroom.training import program as hosts_module
from darkroom.training.batches import DistributedSampler, EpochShare
from darkroom.training.distributed import ProcessGroup
from darkroom.training.program import Hosts, _arguments
from small_trainings import write_dataset

RESOURCES = {
    "current_host": "algo-2",
    "hosts": ["algo-1", "algo-2"],
    "network_interface_name": "eth0",
}


def test_the_resource_config_tells_who_leads_and_by_which_interface() -> None:
    hosts = Hosts.of_job(RESOURCES)
    assert hosts.several
    assert (hosts.names[0], hosts.position, hosts.port) == ("algo-1", 1, 29500)
    assert hosts.environment() == {"GLOO_SOCKET_IFNAME": "eth0", "NCCL_SOCKET_IFNAME": "eth0"}
    arguments = _arguments(4, hosts=hosts)
    assert {"--nnodes=2", "--node-rank=1", "--nproc-per-node=4"} <= {*arguments}
    assert {"--master-addr=algo-1", "--master-port=29500"} <= {*arguments}


@pytest.mark.parametrize("resources", [{}, {"hosts": ["algo-1"], "current_host": "algo-1"}])
def test_one_host_stays_on_loopback(resources: dict[str, object]) -> None:
    hosts = Hosts.of_job(resources)
    assert not hosts.several
    assert hosts.environment() == {}
    arguments = _arguments(2, hosts=hosts)
    assert "--master-addr=127.0.0.1" in arguments
    assert not any("nnodes" in argument for argument in arguments)


@pytest.mark.parametrize(
    "resources",
    [
        {"hosts": ["algo-1", "algo-2"], "current_host": "algo-3"},
        {"hosts": ["algo-1", "algo-2"]},
        {"hosts": ["algo-1", "algo-1"], "current_host": "algo-1"},
    ],
)
def test_a_host_that_cannot_tell_which_it_is_is_refused(resources: dict[str, object]) -> None:
    with pytest.raises(UserError, match="must be one of them"):
        Hosts.of_job(resources)


def test_a_host_that_never_appears_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    known = {"algo-2"}
    monkeypatch.setattr(hosts_module, "_is_known", known.__contains__)
    with pytest.raises(DarkroomError, match=r"hosts \['algo-1'\] of this job"):
        Hosts.of_job(RESOURCES).wait_for_names(seconds=0)
    known.add("algo-1")
    Hosts.of_job(RESOURCES).wait_for_names(seconds=0)


# What each process trains on.


class _Group(ProcessGroup):
    """A process whose sum over the others is known beforehand."""

    def sum(self, values: torch.Tensor) -> torch.Tensor:
        return _PRESENT


_PRESENT = torch.zeros(0)


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    return write_dataset(tmp_path)


@pytest.fixture
def share_out(dataset: Dataset, monkeypatch: pytest.MonkeyPatch) -> Callable[..., list]:
    """The shares of every process, by which host has which image; host by host."""

    def share(present: np.ndarray, *, local: int = 2) -> list[DistributedSampler]:
        monkeypatch.setattr(f"{__name__}._PRESENT", torch.tensor(present, dtype=torch.uint8))
        paths = [record.path for record in dataset.split("train")]
        return [
            DistributedSampler.of(
                dataset,
                held=frozenset(p for p, here in zip(paths, present[host], strict=True) if here),
                group=_Group(
                    rank=host * local + local_rank,
                    size=len(present) * local,
                    device=torch.device("cpu"),
                    local_rank=local_rank,
                    host=host,
                    hosts=len(present),
                ),
            )
            for host in range(len(present))
            for local_rank in range(local)
        ]

    return share


def parted(number: int, *, first: int) -> np.ndarray:
    """(2, number) which of two hosts has which image; the first has `first` of them."""
    present = np.zeros((2, number), dtype=np.uint8)
    chosen = np.random.default_rng(0).permutation(number)[:first]
    present[1] = 1
    present[0, chosen], present[1, chosen] = 1, 0
    return present


def labels_trained(share: DistributedSampler, epoch: EpochShare) -> list[int]:
    index = {name: number for number, name in enumerate(share.dataset.classes)}
    own = [index[record.label] for record in share.dataset.split("train")]
    return [own[position] for positions in epoch.own for position in positions]


@pytest.mark.parametrize("first", [12, 9])
def test_the_hosts_train_on_every_image_once_in_equally_many_steps(
    share_out: Callable[..., list], dataset: Dataset, first: int
) -> None:
    number = len(dataset.split("train"))
    shares = share_out(parted(number, first=first))
    hyperparameters = Hyperparameters(batch_size=8)
    epochs = [share.epoch(1, hyperparameters=hyperparameters) for share in shares]
    seen = [
        share.dataset.split("train")[position].path
        for share, epoch in zip(shares, epochs, strict=True)
        for positions in epoch.own
        for position in positions
    ]
    assert sorted(seen) == sorted(record.path for record in dataset.split("train"))
    assert {len(epoch.own) for epoch in epochs} == {3}
    assert all(share.smallest_part(batch_size=8) == first // 3 // 2 for share in shares)
    for step in range(3):
        batches = {tuple(epoch.batches[step]) for epoch in epochs}
        assert len(batches) == 1, "all processes know the whole batch"
        (batch,) = batches
        assert len(batch) == sum(len(epoch.own[step]) for epoch in epochs)
        assert all(len(e.draws[step]) == len(e.own[step]) for e in epochs)
        whole = sorted(shares[0].labels[list(batch)])
        parts = [
            labels_trained(share, replace(epoch, own=[epoch.own[step]]))
            for share, epoch in zip(shares, epochs, strict=True)
        ]
        assert sorted(label for part in parts for label in part) == whole


def test_the_order_differs_between_epochs_and_hosts(
    share_out: Callable[..., list], dataset: Dataset
) -> None:
    shares = share_out(parted(len(dataset.split("train")), first=12), local=1)
    first, second = (
        [
            np.concatenate(s.epoch(e, hyperparameters=Hyperparameters(batch_size=8)).own).tolist()
            for s in shares
        ]
        for e in (1, 2)
    )
    assert first[0] != first[1]
    assert first[0] != second[0]


def test_stratified_sampling_draws_on_each_host_from_what_it_has(
    share_out: Callable[..., list], dataset: Dataset
) -> None:
    labels = [record.label for record in dataset.split("train")]
    present = np.array([[label != "red" for label in labels], [label == "red" for label in labels]])
    shares = share_out(present, local=1)
    hyperparameters = Hyperparameters(batch_size=8, imbalance="stratified_sampling")
    drawn = [labels_trained(s, s.epoch(1, hyperparameters=hyperparameters)) for s in shares]
    assert np.bincount(drawn[0], minlength=3).tolist() == [8, 8, 0]
    assert np.bincount(drawn[1], minlength=3).tolist() == [0, 0, 8]


def test_a_host_without_images_is_refused(share_out: Callable[..., list], dataset: Dataset) -> None:
    number = len(dataset.split("train"))
    with pytest.raises(UserError, match=r"positions \[1\] of 2 got no training images"):
        share_out(parted(number, first=number))


def test_images_that_no_host_has_are_missed(
    share_out: Callable[..., list], dataset: Dataset
) -> None:
    present = parted(len(dataset.split("train")), first=12)
    present[:, 3:5] = 0
    with pytest.raises(UserError, match="2 of the 24 training images are in no host's shards"):
        share_out(present)


def test_an_image_on_two_hosts_is_trained_on_by_one(
    share_out: Callable[..., list], dataset: Dataset
) -> None:
    number = len(dataset.split("train"))
    present = parted(number, first=12)
    present[0, np.flatnonzero(present[1])[:3]] = 1
    shares = share_out(present, local=1)
    own = [{record.path for record in share.dataset.split("train")} for share in shares]
    assert [len(paths) for paths in own] == [15, number - 15]
    assert not own[0] & own[1]
