"""The buffers store costs beside their transitions, refuse what is wrong, and survive files and copies."""

import copy
import pickle
import tracemalloc

import h5py
import numpy as np
import pytest
from tianshou.data import Batch, ReplayBuffer, ReplayBufferManager
from tianshou.data.utils.converter import to_hdf5
from toys.buffers import append_numbered, numbered_buffer, numbered_step

from fsrl_ext.data import CostReplayBuffer, CostVectorReplayBuffer, NonFiniteStepError

KINDS = [CostReplayBuffer, CostVectorReplayBuffer]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("num_costs", [1, 2])
def test_costs_are_stored_beside_their_transition(kind, num_costs):
    buffer = numbered_buffer(kind, num_costs=num_costs)
    assert buffer.cost.dtype == np.float32
    assert buffer.cost.shape == (buffer.maxsize, num_costs)
    batch, _ = buffer.sample(32)
    env, i = np.floor(batch.obs).T
    expected = 0.1 * i[:, None] + env[:, None] + np.arange(num_costs)
    np.testing.assert_allclose(batch.cost, expected, rtol=1e-6)
    assert "info" not in buffer._meta.get_keys()
    assert "policy" not in buffer._meta.get_keys()
    assert buffer.rew.dtype == np.float64
    assert buffer.obs.dtype == buffer.act.dtype == np.float32


def test_a_first_cost_of_integer_zero_does_not_freeze_the_type():
    buffer = CostReplayBuffer(4)
    buffer.add(numbered_step(0, 1, cost=np.array([0])), [0])
    buffer.add(numbered_step(1, 1, cost=np.array([0.7])), [0])
    assert buffer.cost[1, 0] == np.float32(0.7)


def test_one_transition_without_a_leading_axis():
    buffer = CostReplayBuffer(4)
    one = numbered_step(0, 1)
    single = Batch({key: one[key][0] for key in one.get_keys() if key not in ("info", "policy")})
    buffer.add(single)
    single.cost = np.float64(0.5)
    buffer.add(single)
    np.testing.assert_array_equal(buffer.cost[:2, 0], np.float32([0.0, 0.5]))


@pytest.mark.parametrize("kind", KINDS)
def test_a_refused_batch_changes_nothing(kind):
    buffer = numbered_buffer(kind, steps=4, num_costs=2)
    rows = getattr(buffer, "buffer_num", 1)
    before = pickle.dumps(buffer)

    def add(**changes):
        buffer.add(numbered_step(4, rows, 2, **changes), np.arange(rows))

    with pytest.raises(ValueError, match="the batch has no `cost`"):
        add(cost=None)
    with pytest.raises(ValueError, match=rf"shape \[{rows}, 2\] \(num_costs=2\), got \[{rows}, 3\]"):
        add(cost=np.zeros((rows, 3)))
    with pytest.raises(ValueError, match=rf"\(num_costs=2\), got \[{rows}\]"):
        add(cost=np.zeros(rows))
    for key in ("cost", "rew", "obs", "obs_next", "act"):
        bad = np.array(numbered_step(4, rows, 2)[key], dtype=float)
        bad[-1] = np.nan
        with pytest.raises(NonFiniteStepError, match=f"^{key} of environment {rows - 1} is not"):
            add(**{key: bad})
    assert pickle.dumps(buffer) == before


@pytest.mark.parametrize("argument", ["size", "num_costs"])
def test_sizes_must_be_positive(argument):
    with pytest.raises(ValueError, match=f"{argument} must be a whole number >= 1, got 0"):
        CostReplayBuffer(**({"size": 3, "num_costs": 1} | {argument: 0}))
    with pytest.raises(TypeError):
        CostReplayBuffer(3, stak_num=1)


def same(first, second):
    assert type(first) is type(second)
    assert len(first) == len(second)
    assert first._meta.get_keys() == second._meta.get_keys()
    for key in first._meta.get_keys():
        np.testing.assert_array_equal(first._meta[key], second._meta[key])
    indices = first.sample_indices(0)
    np.testing.assert_array_equal(indices, second.sample_indices(0))
    np.testing.assert_array_equal(first.next(indices), second.next(indices))
    np.testing.assert_array_equal(first.prev(indices), second.prev(indices))
    np.testing.assert_array_equal(first.unfinished_index(), second.unfinished_index())


def through_hdf5(buffer, path):
    buffer.save_hdf5(str(path / "buffer.h5"))
    return type(buffer).load_hdf5(str(path / "buffer.h5"))


def through_pickle(buffer, path):
    return pickle.loads(pickle.dumps(buffer))


def through_deepcopy(buffer, path):
    return copy.deepcopy(buffer)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("through", [through_hdf5, through_pickle, through_deepcopy])
@pytest.mark.parametrize("steps", [0, 5, 23])
def test_a_restored_buffer_goes_on_like_the_original(kind, through, steps, tmp_path):
    buffer = numbered_buffer(kind, steps=steps, num_costs=2)
    restored = through(buffer, tmp_path)
    assert restored.num_costs == 2
    for i in range(steps, steps + 12):  # This goes past the end of an episode and around once more.
        for result, expected in zip(append_numbered(restored, i), append_numbered(buffer, i), strict=True):
            np.testing.assert_array_equal(result, expected)
        same(restored, buffer)
        np.testing.assert_array_equal(restored.sample_indices(5), buffer.sample_indices(5))
    np.testing.assert_array_equal(restored.close_episodes(), buffer.close_episodes())
    same(restored, buffer)
    restored.cost[:] = 99.0
    assert buffer.cost.max() < 99.0


def test_a_saved_vector_buffer_holds_every_transition_once(tmp_path):
    buffer = CostVectorReplayBuffer(100_000, 4)
    buffer.add(numbered_step(0, 4), np.arange(4))
    arrays = sum(buffer._meta[key].nbytes for key in buffer._meta.get_keys())
    buffer.save_hdf5(str(tmp_path / "buffer.h5"))
    assert (tmp_path / "buffer.h5").stat().st_size < 1.05 * arrays
    assert len(pickle.dumps(buffer)) < 1.05 * arrays


def test_a_file_of_another_class_is_refused(tmp_path):
    path = str(tmp_path / "buffer.h5")
    numbered_buffer(CostReplayBuffer).save_hdf5(path)
    with pytest.raises(ValueError, match="not a saved CostVectorReplayBuffer"):
        CostVectorReplayBuffer.load_hdf5(path)
    stock = ReplayBuffer(4)
    stock.add(numbered_step(0, 1), [0])
    stock.save_hdf5(path)
    with pytest.raises(ValueError, match=r"holds a pickled object in _random_state \(RandomState\)"):
        CostReplayBuffer.load_hdf5(path)


def test_a_million_transitions_take_little_more_than_their_arrays():
    CostVectorReplayBuffer(4, 2)  # Whatever is done once is done here, outside of the measurement.
    tracemalloc.start()
    buffer = CostVectorReplayBuffer(1_000_000, 4)
    buffer.add(numbered_step(0, 4, obs=np.zeros((4, 8)), obs_next=np.zeros((4, 8))), np.arange(4))
    used, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    arrays = sum(buffer._meta[key].nbytes for key in buffer._meta.get_keys())
    assert used < 1.1 * arrays
    assert peak < 1.1 * arrays
    for child, start in zip(buffer.buffers, buffer._offset, strict=True):
        assert np.shares_memory(child.cost, buffer.cost[start : start + child.maxsize])
        assert np.shares_memory(child.done, buffer.done[start : start + child.maxsize])


def test_the_seed_reaches_manager_and_sub_buffers():
    draws = [
        numbered_buffer(CostVectorReplayBuffer, random_seed=seed).sample_indices(40) for seed in (1, 1, 2)
    ]
    np.testing.assert_array_equal(draws[0], draws[1])
    assert not np.array_equal(draws[0], draws[2])
    which = [CostVectorReplayBuffer(400, 2, random_seed=seed)._random_state.rand() for seed in (1, 2)]
    assert which[0] != which[1]  # The manager's own generator decides between the sub-buffers.
    # The draws of one sub-buffer say nothing about those of the other.
    buffer = numbered_buffer(CostVectorReplayBuffer)
    first, second = (child.sample_indices(200) for child in buffer.buffers)
    assert np.mean(first == second) < 0.3


def test_frames_can_be_stacked_and_obs_next_left_out():
    buffer = numbered_buffer(CostVectorReplayBuffer, stack_num=2, ignore_obs_next=True)
    assert "obs_next" not in buffer._meta.get_keys()
    batch = buffer[buffer.sample_indices(0)]
    assert batch.obs.shape == (16, 2, 2)
    assert batch.obs_next.shape == (16, 2, 2)
    assert batch.cost.shape == (16, 1)


@pytest.mark.parametrize("kind", KINDS)
def test_closing_episodes(kind):
    buffer = numbered_buffer(kind, steps=5)  # The second episode is open after 3 + 2 steps.
    per = 8
    expected = [4] if kind is CostReplayBuffer else [4, 4 + per]
    np.testing.assert_array_equal(buffer.close_episodes(), expected)
    assert buffer.truncated[expected].all()
    assert buffer.done[expected].all()
    assert len(buffer.close_episodes()) == 0  # Nothing is open any more.
    _, returns, lens, starts = append_numbered(buffer, 5)  # Step 5 ends an episode, which now has one step.
    assert lens.tolist() == [1] * len(expected)
    assert starts.tolist() == [i + 1 for i in expected]
    np.testing.assert_array_equal(returns, [5.0, 5.5][: len(expected)])
    buffer.reset()
    assert len(buffer.close_episodes()) == 0
    assert len(kind(4, *([2] if kind is CostVectorReplayBuffer else [])).close_episodes()) == 0


def test_closing_before_every_environment_has_stepped():
    buffer = CostVectorReplayBuffer(8, 2)
    buffer.add(numbered_step(0, 1), [1])
    assert buffer.close_episodes().tolist() == [4]
    assert not buffer.done[0]


@pytest.mark.parametrize("source_kind", KINDS)
@pytest.mark.parametrize("size", [5, 8, 40])
def test_update_moves_costs_and_joins_no_episodes(source_kind, size):
    source = numbered_buffer(source_kind, steps=20, num_costs=2)  # Two steps are open.
    target = CostReplayBuffer(size, 2)
    append_numbered(target, 100)  # An episode is open here, too.
    indices = target.update(source)
    assert len(indices) == len(source)
    assert len(target) == min(size, len(source) + 1)
    append_numbered(target, 200)
    for i in target.sample_indices(0):
        j = target.next(i)
        if j != i:
            np.testing.assert_array_equal(target.obs[j], target.obs_next[i])
        env, number = np.floor(target.obs[i])
        np.testing.assert_allclose(target.cost[i], 0.1 * number + env + [0, 1], rtol=1e-6)
    assert not source.done[source.last_index].any()  # The source stays as it was.


def test_update_needs_the_same_costs():
    with pytest.raises(ValueError, match="num_costs=2, got 1"):
        CostReplayBuffer(5, 2).update(numbered_buffer(CostReplayBuffer))
    with pytest.raises(ValueError, match="num_costs=2, got None"):
        CostReplayBuffer(5, 2).update(ReplayBuffer(3))
    with pytest.raises(NotImplementedError, match=r"use CostReplayBuffer\.update"):
        numbered_buffer(CostVectorReplayBuffer).update(numbered_buffer(CostReplayBuffer))


@pytest.mark.parametrize("kind", KINDS)
def test_set_batch_checks_and_shares_the_data(kind):
    buffer = numbered_buffer(kind)
    batch = Batch(buffer._meta, copy=True)
    batch.cost = batch.cost[:, 0] + 1.0
    buffer.set_batch(batch)
    assert buffer.cost.shape == (buffer.maxsize, 1)
    if kind is CostVectorReplayBuffer:
        assert np.shares_memory(buffer.buffers[1].cost, buffer.cost)
    with pytest.raises(ValueError, match="the batch has no `cost`"):
        buffer.set_batch(Batch({k: v for k, v in batch.items() if k != "cost"}))
    with pytest.raises(ValueError, match=f"must have {buffer.maxsize} rows .* got 4 rows"):
        buffer.set_batch(batch[:4])
    with pytest.raises(ValueError, match="unknown"):
        buffer.set_batch(Batch(batch, unknown=np.zeros(buffer.maxsize)))


def test_from_data_holds_a_whole_data_set():
    source = numbered_buffer(CostReplayBuffer, steps=6)
    batch = source[:]
    keys = ("obs", "act", "rew", "terminated", "truncated", "done", "obs_next", "cost")
    data = {key: batch[key] for key in keys}
    buffer = CostReplayBuffer.from_data(**data)
    assert len(buffer) == 6
    assert buffer.next(np.arange(6)).tolist() == [1, 2, 2, 4, 5, 5]
    np.testing.assert_array_equal(buffer[:].cost, batch.cost)
    append_numbered(buffer, 6)
    assert buffer.cost[0, 0] == np.float32(0.6)
    with pytest.raises(ValueError, match="same length"):
        CostReplayBuffer.from_data(**(data | {"cost": np.zeros(5)}))
    with pytest.raises(NotImplementedError, match=r"use CostReplayBuffer\.from_data"):
        CostVectorReplayBuffer.from_data(**data)


@pytest.mark.parametrize("cls", [CostReplayBuffer, CostVectorReplayBuffer])
def test_slices_without_an_array_of_places(cls):
    buffer = numbered_buffer(cls)
    assert not any("_indices" in vars(each) for each in [buffer, *getattr(buffer, "buffers", [])])
    np.testing.assert_array_equal(buffer[1:3].obs, buffer[np.array([1, 2])].obs)


def test_neighbours_are_tianshous():
    buffer, rng = CostVectorReplayBuffer(24, 3), np.random.default_rng(0)
    places = np.concatenate([np.arange(-24, 60), rng.integers(0, 24, 50)])
    # The buffer goes from empty to wrapped around, with sub-buffers that are filled to different heights.
    for i in range(40):
        ids = np.flatnonzero(rng.random(3) < 0.7)
        if len(ids):
            buffer.add(numbered_step(i, len(ids), terminated=rng.random(len(ids)) < 0.3), ids)
        for name in ("prev", "next"):
            expected = getattr(ReplayBufferManager, name)(buffer, places)
            neighbours = getattr(buffer, name)(places)
            assert neighbours.dtype == expected.dtype
            np.testing.assert_array_equal(neighbours, expected, err_msg=f"{name} after {i}")
            assert getattr(buffer, name)(7) == getattr(ReplayBufferManager, name)(buffer, 7)


class Trap:
    """An object that shows whether it was unpickled."""

    sprung = False

    def __reduce__(self):
        return (setattr, (Trap, "sprung", True))


@pytest.mark.parametrize("kind", KINDS)
def test_a_pickled_object_in_a_file_is_refused_by_name_and_not_run(kind, tmp_path):
    path = str(tmp_path / "buffer.h5")
    buffer = numbered_buffer(kind)
    buffer.save_hdf5(path)
    with h5py.File(path, "a") as file:
        to_hdf5({"trap": Trap()}, file["options"])
    with pytest.raises(ValueError, match=r"buffer\.h5 holds a pickled object in options/trap \(Trap\)"):
        kind.load_hdf5(path)
    assert not Trap.sprung
    buffer.user = object()
    with pytest.raises(TypeError, match="arrays of numbers alone, and user is of the type object"):
        buffer.save_hdf5(path)


@pytest.mark.parametrize("entry", ["num_costs", "_random_state", "episodes", "last_index", "_meta/obs"])
def test_a_damaged_file_is_refused(entry, tmp_path):
    path = str(tmp_path / "buffer.h5")
    numbered_buffer(CostReplayBuffer).save_hdf5(path)
    with h5py.File(path, "a") as file:
        if entry == "num_costs":
            del file.attrs[entry]
        elif entry == "_meta/obs":
            del file[entry]
            file[entry] = h5py.ExternalLink("/etc/passwd", "/")
        else:
            del file[entry]
            file.attrs[entry] = "text"
    with pytest.raises(ValueError, match=r"not a saved CostReplayBuffer|link to somewhere else in _meta/obs"):
        CostReplayBuffer.load_hdf5(path)
    (tmp_path / "buffer.h5").write_bytes(b"nothing")
    with pytest.raises(ValueError, match="damaged or not an HDF5 file"):
        CostReplayBuffer.load_hdf5(path)
