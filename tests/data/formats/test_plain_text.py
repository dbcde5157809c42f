"""Plain text by speaker, file and line: hand-written plays, and the real one."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fedjax_lite as fl
from fedjax_lite.data import DataError, Vocabulary, decode

PLAY = "ANN SMITH:\nTo be,\nor not.\n\nBOB:\nNo: never!\nWhy:\n\n\nANN SMITH:\nBye\n"


def write(folder, text, name="play.txt"):
    folder.joinpath(name).write_text(text, encoding="utf-8")
    return folder / name


def texts(part, words):
    """Each client's text, its windows put together."""
    return [decode(Vocabulary(words), np.asarray(part.client(i)["y"]).ravel()) for i in range(part.population)]


def test_by_speaker(tmp_path):
    data = fl.data.text(write(tmp_path, PLAY), by="speaker", length=4, test=0)
    assert data.names == ("ANN SMITH", "BOB") and texts(data.train, data.words) == ["To be,\nor not.\nBye", "No: never!\nWhy:"]
    assert data.words == ("<pad>", "<unknown>", "<begin>", "<end>", *sorted({*"To be,\nor not.\nBye", *"No: never!\nWhy:"}))
    first = np.asarray(data.train.client(0)["x"])
    assert first[0].tolist() == [2, *fl.data.encode(Vocabulary(data.words), "To ")]
    assert data.test is None


def test_by_file_and_word(tmp_path):
    write(tmp_path, "The cat. The dog", "b.txt")
    write(tmp_path, "A cat", "a.txt")
    data = fl.data.text(tmp_path, by="file", unit="word", length=3, vocabulary=2, test=0)
    assert data.names == ("a", "b") and data.words[4:] == ("cat", "the")
    assert data.train.client(1)["y"].tolist() == [[5, 4, 1], [5, 1, 3]]


def test_by_line(tmp_path):
    with pytest.raises(ValueError, match="partition: these files name no clients"):
        fl.data.text(write(tmp_path, "ab\n\ncd\nef\ngh\n"), by="line", length=3)
    data = fl.data.text(tmp_path / "play.txt", by="line", length=3, partition=fl.partition.iid(clients=1), test=0.25)
    assert data.train.size.tolist() == [3] and data.test.size.tolist() == [1] and len(data.words) == 4 + 8
    assert {*texts(data.train, data.words)[0], *texts(data.test, data.words)[0]} == {*"abcdefgh"}


def test_the_end_of_each_text_is_held_out(tmp_path):
    write(tmp_path, "abcdefghij" * 3, "a.txt")
    write(tmp_path, "xy", "b.txt")
    data = fl.data.text(tmp_path, by="file", length=5, test=0.21)
    assert texts(data.train, data.words) == ["abcdefghij" * 2 + "abcd", "xy"]
    assert texts(data.test, data.words) == ["fghij", ""]  # "e" has no token before it there
    assert data.test.size.tolist() == [2, 0] and data.test.names == data.train.names
    fewer = fl.data.text(tmp_path, by="file", length=5, test=0.5, least=3)
    assert fewer.names == ("a",) and "x" not in fewer.words
    dealt = fl.data.text(tmp_path, by="file", length=5, test=0.5, partition=fl.partition.iid(clients=2))
    assert dealt.train.population == 2 and dealt.test.population == 1


def test_what_is_held_out_is_not_in_the_vocabulary(tmp_path):
    data = fl.data.text(write(tmp_path, "A:\naaaaaaaazz\n"), by="speaker", length=4, test=0.2)
    assert data.words[4:] == ("a",) and data.test.examples["y"].tolist() == [[1, 3, 0, 0]]


@pytest.mark.deep
def test_padding_does_not_count(tmp_path):
    """The loss of a filled-up window is that of the window without its filling."""
    data = fl.data.text(write(tmp_path, "A:\nabcd\n"), by="speaker", length=9, test=0).train
    model = fl.models.char_lstm(len(data.words), hidden=8, layers=1)
    params = model.init(jax.random.key(0), data.example)
    loss = fl.models.supervised(model, ignore=0)
    short = {leaf: array[:, :5] for leaf, array in data.examples.items()}
    losses, whole = (loss(params, batch, None)[0].value() for batch in (data.examples, short))
    np.testing.assert_allclose(losses, whole, rtol=1e-6)
    assert jnp.isfinite(losses).all()


@pytest.mark.parametrize(
    ("content", "arguments", "message"),
    [
        ("Once upon\n\nA:\nx\n", {}, "play.txt, line 1: text before the first speaker"),
        ("A:\nx\n", {"least": 5}, "play.txt: no speaker has 5 tokens: lower least"),
        ("A:\n\nB:\n", {}, "play.txt: no speaker has 1 tokens"),
        ("A:\nx\n", {"by": "word"}, "by must be 'speaker', 'file' or 'line', got 'word'"),
        ("A:\nx\n", {"length": 0}, "text: length must be a whole number of at least 1"),
        ("A:\nx\n", {"least": 0}, "text: least must be a whole number of at least 1"),
        ("A:\nxx\n", {"test": 0.2}, "test=0.2 holds nothing out, the longest text has 2 tokens"),
        ("A:\nxx\n", {"test": 1}, "test must be a fraction"),
    ],
)
def test_refusals(tmp_path, content, arguments, message):
    with pytest.raises(ValueError, match=message):
        fl.data.text(write(tmp_path, content), **{"by": "speaker", **arguments})


def test_damage_and_places(tmp_path):
    tmp_path.joinpath("play.txt").write_bytes(b"A:\nx\xff\n")
    with pytest.raises(DataError, match="play.txt, line 2: byte 0xff is not UTF-8"):
        fl.data.text(tmp_path, by="speaker")
    with pytest.raises(FileNotFoundError, match="is not there"):
        fl.data.text(tmp_path / "other.txt", by="speaker")


def test_tiny_shakespeare(real_data):
    file = real_data / "tinyshakespeare" / "input.txt"
    if not file.exists():
        pytest.skip(f"no {file}")
    data = fl.data.text(file, by="speaker", test=0)
    assert data.population == 299 and len(data.words) == 4 + 65  # ten of 309 say nothing
    assert fl.data.text(file, by="speaker", test=0, least=1000).population == 141
    text = file.read_text()
    said = [block.partition("\n")[2] for block in text.strip().split("\n\n") if block.startswith("ROMEO:")]
    romeo = data.train.client(data.names.index("ROMEO"))
    assert decode(Vocabulary(data.words), np.asarray(romeo["y"]).ravel()) == "\n".join(filter(None, said))
