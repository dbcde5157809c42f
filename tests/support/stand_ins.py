"""Files of the forms that shipped configurations read: as many examples as they deal out, and nothing to learn but of activities."""

import json

import numpy as np


def idx_files(folder):
    """10,000 images of ten classes, as MNIST's t10k files."""
    rng = np.random.default_rng(0)
    images, labels = rng.integers(0, 256, (10_000, 28, 28), dtype=np.uint8), np.arange(10_000, dtype=np.uint8) % 10
    for name, array in (("images-idx3", images), ("labels-idx1", labels)):
        header = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">i4").tobytes()
        (folder / f"t10k-{name}-ubyte").write_bytes(header + array.tobytes())


def leaf_shards(folder):
    """25 writers of three images to train on and one to test, as LEAF's FEMNIST."""
    for part, examples in (("train", 3), ("test", 1)):
        (folder / part).mkdir()
        x, y = np.linspace(0, 1, 784).round(2).tolist(), [0, 30, 61][:examples]
        users = [f"f{i:04}" for i in range(25)]
        shard = {"users": users, "num_samples": [examples] * 25, "user_data": {user: {"x": [x] * examples, "y": y} for user in users}}
        (folder / part / "all.json").write_text(json.dumps(shard))


def activities(folder):
    """30 people of twelve examples each, as a CSV of UCI's Human Activity Recognition: an activity is a place, a person a way from it."""
    rng = np.random.default_rng(0)
    names = "LAYING SITTING STANDING WALKING WALKING_DOWNSTAIRS WALKING_UPSTAIRS".split()
    person, activity = np.repeat(np.arange(1, 31), 12), np.tile(np.arange(6), 60)
    places, beside = rng.normal(size=(6, 561)), rng.normal(size=(31, 561))
    x = np.tanh(0.3 * (places[activity] + beside[person] + 2 * rng.normal(size=(360, 561))))
    lines = [
        ",".join([*(f"{value:.5f}" for value in row), str(who), names[what]]) for row, who, what in zip(x, person, activity, strict=True)
    ]
    (folder / "har.csv").write_text("\n".join([",".join([*(f"f{i}" for i in range(561)), "subject", "Activity"]), *lines]))


def photographs(folder):
    """200 images to train on and 10 to test, of ten classes, as CIFAR-10's binary files."""
    rng = np.random.default_rng(0)
    for name, count in (*((f"data_batch_{i}", 40) for i in range(1, 6)), ("test_batch", 10)):
        rows = rng.integers(0, 256, (count, 3073), dtype=np.uint8)
        rows[:, 0] = np.arange(count) % 10
        (folder / f"{name}.bin").write_bytes(rows.tobytes())


def roles(folder):
    """12 roles of two snippets to train on and one to test, as TFF's Shakespeare."""
    import h5py

    for part, snippets in (("train", [b"To be, or not to be, that is the question.", b"Words, words, words."]), ("test", [b"The rest"])):
        with h5py.File(folder / f"shakespeare_{part}.h5", "w") as file:
            for i in range(12):
                file[f"examples/ROLE_{i:02}/snippets"] = np.array(snippets)
