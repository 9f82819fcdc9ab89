"""A run whose environments are on several nodes of a Ray cluster; skipped where Ray is missing."""

import os
import socket
import sys
import time

import pytest
from toys.runs import assert_same_run
from toys.settings import small_config

from fsrl_ext.errors import RunStoppedError
from fsrl_ext.experiment import RunCallback, resume, run

WORKERS = 3


@pytest.fixture
def cluster(monkeypatch):
    ray = pytest.importorskip("ray")
    from ray.cluster_utils import Cluster

    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    # A machine of a cluster has the code installed that actors import; here that includes the toys.
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
    # Ray then notices within seconds that a node is gone.
    checks = {"health_check_period_ms": 1000, "health_check_failure_threshold": 3}
    nodes = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "_system_config": checks})
    nodes.others = [nodes.add_node(num_cpus=2) for _ in range(2)]
    ray.init(nodes.address, log_to_driver=False, logging_level="ERROR")
    yield nodes
    ray.shutdown()
    nodes.shutdown()


class Watch(RunCallback):
    """Notes on which nodes the actors are, and removes one node in the middle of the run."""

    def __init__(self, remove=None):
        self.remove, self.nodes = remove, set()

    def on_collect_end(self, run):
        import ray

        if run.env_step < 400 or self.nodes:
            return
        actors = run.trainer.train_collector._worker._actors._actors
        asked = [x.__ray_call__.remote(lambda _: ray.get_runtime_context().get_node_id()) for x in actors]
        self.nodes = set(ray.get(asked))
        if self.remove is not None:
            self.remove()


@pytest.mark.slow
def test_machines_make_no_difference_and_a_lost_one_ends_the_run_resumably(cluster, tmp_path):
    import ray

    config = small_config("sac_lag", worker_type="ray", workers=WORKERS, num_envs=4, collect_ahead=True)
    watch = Watch()
    whole = run(config, out=tmp_path, run_name="whole", show_progress=False, callbacks=[watch])
    assert len(watch.nodes) == 2
    lost = Watch(lambda: cluster.remove_node(cluster.others.pop(), allow_graceful=False))
    with pytest.raises(RunStoppedError, match=rf"^Ray actor \d of {WORKERS} has ended") as error:
        run(config, out=tmp_path, run_name="lost", show_progress=False, callbacks=[lost])
    assert "\n" not in str(error.value)
    assert "to go on: fsrl-ext resume" in error.value.__notes__[-1]
    # One node alone has no room, and another one joins.
    while ray.cluster_resources()["CPU"] > 2:
        time.sleep(0.1)
    with pytest.raises(
        ValueError, match=f"workers must be at most 2, the CPUs of the cluster, got {WORKERS}"
    ):
        resume(tmp_path / "lost", show_progress=False)
    cluster.add_node(num_cpus=1)
    assert resume(tmp_path / "lost", show_progress=False).result["resumed"][-1]["exact"]
    assert_same_run(whole.folder, tmp_path / "lost")


def test_an_address_where_nothing_listens_is_named_at_once(monkeypatch, tmp_path):
    pytest.importorskip("ray")
    with socket.socket() as taken:  # bound but not listening, so nobody else can listen there
        taken.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        monkeypatch.setenv("RAY_ADDRESS", address)
        config = small_config("sac_lag", worker_type="ray", workers=2)
        with pytest.raises(ValueError, match=f"RAY_ADDRESS must be that of a Ray cluster, got '{address}'"):
            run(config, out=tmp_path, show_progress=False)


def test_settings_that_ray_workers_cannot_have_are_refused():
    for workers in (0, 5):
        message = f"workers must be auto or from 1 to num_envs=4 with worker_type='ray', got {workers}"
        with pytest.raises(ValueError, match=message):
            small_config("ppo_lag", worker_type="ray", workers=workers, num_envs=4)
    assert small_config("ppo_lag", worker_type="ray", workers=2, num_envs=4).num_envs == 4
    with pytest.raises(ValueError, match=r"worker_type must be one of \('process',\), got 'ray'"):
        small_config("meta_cpo", worker_type="ray", workers=2)
