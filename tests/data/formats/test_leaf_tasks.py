"""LEAF's tasks with images, tweets and comments, in folders written here."""

import json

import numpy as np
import pytest

import fedjax_lite as fl
from fedjax_lite.data import DataError, leaf


def write(folder, **users):
    folder.mkdir(parents=True, exist_ok=True)
    facts = {"users": list(users), "num_samples": [len(data["y"]) for data in users.values()], "user_data": users}
    (folder / "shard.json").write_text(json.dumps(facts))
    return folder


def tweet(text):
    return ["2087", "Sat May 16 23:58:44 UTC 2009", "NO_QUERY", "robotickilldozr", text, "training"]


def test_tweets_are_words_of_the_training_clients_by_frequency(tmp_path):
    write(tmp_path / "train", b={"x": [tweet("Good good DAY!")], "y": [1]}, a={"x": [tweet("a bad day, day"), tweet("")], "y": [0, 1]})
    write(tmp_path / "test", a={"x": [tweet("good night !")], "y": [1]})
    data = leaf(tmp_path, length=5, vocabulary=4)
    # day 3 times, good twice, then of one frequency "!" and "," before letters; "a" and "bad" have no number. In order: ! , day good
    assert data.train.examples["x"].tolist() == [[1, 1, 6, 5, 6], [0] * 5, [7, 7, 6, 4, 0]]
    assert data.test.examples["x"].tolist() == [[7, 1, 4, 0, 0]]
    assert data.train.examples["y"].tolist() == [0, 1, 1] and data.names == ("a", "b") and data.words is None
    assert data.train.examples["x"].dtype == np.int32


def comment(*words):
    """A comment in sequences of 4, as LEAF's preprocessing makes them."""
    ours, theirs = ["<BOS>", *words, "<EOS>"], [*words, "<EOS>", "<PAD>"]
    x, y = ([*side, *["<PAD>"] * (-len(side) % 4)] for side in (ours, theirs))
    cut = lambda side: [side[i : i + 4] for i in range(0, len(side), 4)]  # noqa: E731
    return cut(x), {"target_tokens": cut(y), "count_tokens": [], "subreddit": "tests", "created_utc": 1}


def user(*comments):
    return dict(zip("xy", map(list, zip(*[comment(*each.split()) for each in comments], strict=True)), strict=True))


def test_comments_are_sequences_with_their_next_words(tmp_path):
    write(tmp_path / "train", u=user("to be or not to be", "be"))
    shard = json.loads((tmp_path / "train" / "shard.json").read_text())
    (tmp_path / "train" / "shard.json").write_text(json.dumps(shard | {"num_samples": [7]}))  # LEAF counts all parts here
    write(tmp_path / "test", u=user("question"))
    data = leaf(tmp_path)
    assert data.words == ("<pad>", "<unknown>", "<begin>", "<end>", "be", "not", "or", "to")
    assert data.train.examples["x"].tolist() == [[2, 7, 4, 6], [5, 7, 4, 3], [2, 4, 3, 0]]
    assert data.train.examples["y"].tolist() == [[7, 4, 6, 5], [7, 4, 3, 0], [4, 3, 0, 0]]
    assert data.test.examples["x"].tolist() == [[2, 1, 3, 0]] and data.test.examples["y"].tolist() == [[1, 3, 0, 0]]
    fewer = leaf(tmp_path, vocabulary=2)  # be is there 6 times and to 4, not and or twice
    assert fewer.words[4:] == ("be", "to") and fewer.train.examples["y"].tolist()[0] == [5, 4, 1, 1]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"x": [tweet("a")[:5]], "y": [1]}, "x of user 'u' in .*shard.json must be a list of numbers, got str"),
        ({"x": [tweet("a"), ["b"]], "y": [1, 0]}, "x of user 'u' in .*shard.json must be tweets of 6 fields"),
        ({"x": [tweet("a")], "y": ["good"]}, "holds words, and that of .* numbers"),
        ({"x": [tweet("a")], "y": [{}]}, '"target_tokens"'),
        ({"x": [[["a"]]], "y": [{"target_tokens": [["b"], ["c"]]}]}, "x of user 'u' in .*shard.json must be sequences of words"),
        ({"x": [[["a"]]], "y": [{"target_tokens": [["b", "c"]]}]}, "sequences of user 'u' in .*shard.json must be lists of words of one"),
        ({"x": [[["a"]]], "y": [{"target_tokens": [[1]]}]}, "sequences of user 'u' .* must be lists of words"),
        ({"x": [[]], "y": [{"target_tokens": []}]}, "sequences of user 'u' .* must be lists of words"),
        ({"x": [[1.0]], "y": [1]}, "x of user 'a' in .* is words, and that of user 'u' in .* is not"),
    ],
)
def test_what_is_no_text_is_named(tmp_path, data, message):
    write(tmp_path, a={"x": [tweet("fine")], "y": [1]}, u=data)
    with pytest.raises(DataError, match=message):
        leaf(tmp_path, test=0)


@pytest.fixture
def faces(tmp_path):
    """Two people with three PNG images of 4 x 2 pixels."""
    image = pytest.importorskip("PIL.Image")
    (tmp_path / "images").mkdir()
    pictures = np.random.default_rng(0).integers(0, 256, (3, 4, 2, 3), np.uint8)
    for i, picture in enumerate(pictures):
        image.fromarray(picture).save(tmp_path / "images" / f"00000{i}.png")
    write(tmp_path / "data", ann={"x": ["000002.png", "000000.png"], "y": [1, 0]}, bob={"x": ["000001.png"], "y": [1]})
    return tmp_path, pictures


def test_images_are_read_from_their_folder(faces):
    tmp_path, pictures = faces
    data = leaf(tmp_path / "data", images=str(tmp_path / "images"), test=0).train
    np.testing.assert_array_equal(data.examples["x"], pictures[[2, 0, 1]].astype(np.float32) / 255)
    assert data.examples["y"].tolist() == [1, 0, 1] and data.names == ("ann", "bob")
    small = leaf(tmp_path / "data", images=tmp_path / "images", size=1, test=0).train.examples["x"]
    assert small.shape == (3, 1, 1, 3) and abs(np.asarray(small) - pictures[[2, 0, 1]].mean((1, 2))[:, None, None] / 255).max() < 0.2


def test_images_that_cannot_be_had_are_named(faces):
    tmp_path, pictures = faces
    images, data = tmp_path / "images", tmp_path / "data"
    with pytest.raises(DataError, match=r"x of user 'ann' in .*shard.json names image files \('000002.png'\): give images="):
        leaf(data)
    with pytest.raises(FileNotFoundError, match="is not a folder: give the one that holds the images"):
        leaf(data, images=tmp_path / "nowhere")
    (images / "000001.png").rename(tmp_path / "out.png")
    with pytest.raises(DataError, match="images has no image '000001.png': give the folder that holds it"):
        leaf(data, images=images)
    (images / "000001.png").symlink_to(tmp_path / "out.png")
    with pytest.raises(DataError, match="the image '000001.png' is not in .*images: name files of that folder alone"):
        leaf(data, images=images)
    for name in ("../out.png", str(tmp_path / "out.png")):
        write(data, ann={"x": [name], "y": [1]})
        with pytest.raises(DataError, match="out.png' is not in .*images"):
            leaf(data, images=images)
    write(data, ann={"x": ["000000.png"] * 2, "y": [1, 0]})
    with pytest.raises(DataError, match="names the image '000000.png', which an example before it has"):
        leaf(data, images=images)
    (images / "000002.png").write_bytes((images / "000000.png").read_bytes()[:60])
    write(data, ann={"x": ["000002.png"], "y": [1]})
    with pytest.raises(DataError, match="000002.png cannot be read as an image .*it is damaged, copy it again"):
        leaf(data, images=images)


def test_images_of_two_sizes_need_one(faces):
    tmp_path, _ = faces
    from PIL import Image

    Image.new("RGB", (5, 5)).save(tmp_path / "images" / "000000.png")
    with pytest.raises(DataError, match=r"000000.png and .*000002.png are 5 x 5 and 4 x 2 pixels: give size="):
        leaf(tmp_path / "data", images=tmp_path / "images")
    assert leaf(tmp_path / "data", images=tmp_path / "images", size=3, test=0).train.example["x"].shape == (3, 3, 3)


def test_a_short_file_that_is_a_vast_image_is_refused(faces):
    tmp_path, _ = faces
    from PIL import Image

    Image.new("1", (8000, 8000)).save(tmp_path / "images" / "000000.png")
    with pytest.raises(DataError, match="000000.png has 192000000 bytes unpacked, too many for a file of this size"):
        leaf(tmp_path / "data", images=tmp_path / "images")


def test_a_long_word_beside_many_numbers_takes_no_room_of_its_own(tmp_path):
    """NumPy would give each number the room of the longest text: 4 MB times 20,000."""
    for x, y in (([[1.0]] * 20_000 + [["a" * 10**6]], [1] * 20_001), ([[1.0]] * 20_001, ["a" * 10**6] + ["b"] * 20_000)):
        write(tmp_path, u={"x": x, "y": y})
        if isinstance(y[0], str):
            assert len(leaf(tmp_path, test=0).words[0]) == 10**6
        else:
            with pytest.raises(DataError, match="must be a list of numbers, got str"):
                leaf(tmp_path)


def test_users_can_be_dealt_anew(tmp_path):
    write(tmp_path / "train", a={"x": [[float(i)] for i in range(6)], "y": [0, 1] * 3})
    write(tmp_path / "test", a={"x": [[9.0]], "y": [1]})
    data = leaf(tmp_path, partition=fl.partition.iid(3))
    assert data.train.size.tolist() == [2, 2, 2] and data.test.population == 1 and data.names is None


def test_users_that_are_numbers_are_in_their_order(tmp_path):
    write(tmp_path, **{"10": {"x": [[1.0]], "y": [1]}, "9": {"x": [[2.0]], "y": [0]}})
    assert leaf(tmp_path, test=0).names == ("9", "10")
