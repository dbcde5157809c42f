"""LEAF folders: tiny ones written here, and 75 real FEMNIST writers."""

import io
import json

import numpy as np
import pytest
from fuzz import taking_at_most
from hypothesis import given, settings
from hypothesis import strategies as st

from fedjax_lite.data import DataError, leaf
from fedjax_lite.data.formats import leaf_shard


@pytest.fixture(scope="module")
def femnist(real_data):
    if not (real_data / "femnist_leaf").is_dir():
        pytest.skip(f"no femnist_leaf in {real_data}: set FEDJAX_LITE_DATA to a folder that has it")
    return real_data / "femnist_leaf"


def user(n, value=0.5):
    return {"x": [[value, float(i)] for i in range(n)], "y": list(range(n))}


def write(folder, name="shard.json", **users):
    folder.mkdir(parents=True, exist_ok=True)
    shard = {"users": list(users), "num_samples": [len(data["y"]) for data in users.values()], "user_data": users}
    (folder / name).write_text(json.dumps(shard))
    return folder / name


def edit(file, change):
    shard = json.loads(file.read_text())
    change(shard)
    file.write_text(json.dumps(shard))


def test_shards_are_joined_and_users_sorted_by_name(tmp_path):
    write(tmp_path / "train", "b.json", f9=user(1, 0.9), f1=user(2, 0.1))
    write(tmp_path / "train", "a.json", f10=user(3, 0.2))
    write(tmp_path / "test", f1=user(1, 0.1), f9=user(4, 0.9), f10=user(2, 0.2))
    data = leaf(str(tmp_path))
    assert data.train.size.tolist() == [2, 3, 1]  # f1, f10, f9
    assert data.test.size.tolist() == [1, 2, 4]
    np.testing.assert_allclose(data.train.client(1)["x"], [[0.2, 0], [0.2, 1], [0.2, 2]])
    assert data.train.examples["x"].dtype == np.float32 and data.train.examples["y"].dtype == np.int32


def test_a_folder_of_shards_has_no_test_part_and_each_client_holds_out(tmp_path):
    write(tmp_path, a=user(2))
    (tmp_path / "notes.txt").write_text("not read")
    assert leaf(tmp_path, test=0).test is None
    write(tmp_path / "set" / "train", a=user(10), b=user(2))
    data = leaf(tmp_path / "set")
    assert data.train.size.tolist() == [8, 2] and data.test.size.tolist() == [2, 0]


def test_a_user_may_be_missing_or_empty_in_test(tmp_path):
    write(tmp_path / "train", a=user(2), b=user(2), c=user(1))
    write(tmp_path / "test", b=user(3), c=user(0))
    data = leaf(tmp_path)
    assert data.test.size.tolist() == [0, 3, 0]
    assert data.test.examples["y"].dtype == np.int32


def test_unseen_test_users_become_one_central_set(tmp_path):
    write(tmp_path / "train", a=user(2), b=user(2))
    write(tmp_path / "test", d=user(3, 0.4), c=user(1, 0.3))
    test = leaf(tmp_path).test
    assert test.population == 1
    np.testing.assert_allclose(test.examples["x"][:, 0], [0.3, 0.4, 0.4, 0.4])


def test_some_unseen_test_users_mean_missing_shards(tmp_path):
    write(tmp_path / "train", a=user(2))
    write(tmp_path / "test", a=user(1), b=user(1), c=user(1))
    with pytest.raises(DataError, match="test: 2 of 3 clients, such as 'b', are not in the training part: add the files that are missing"):
        leaf(tmp_path)


def test_invert(tmp_path):
    write(tmp_path, a=user(1, 0.25))
    assert leaf(tmp_path, invert=True, test=0).train.examples["x"].tolist() == [[0.75, 1.0]]


def test_targets_are_floats_if_any_is(tmp_path):
    write(tmp_path, a={"x": [[1], [2]], "y": [1, 2]}, b={"x": [[3]], "y": [0.5]})
    data = leaf(tmp_path, test=0).train
    assert data.examples["y"].dtype == np.float32 and data.examples["y"].tolist() == [1, 2, 0.5]
    assert data.examples["x"].dtype == np.float32


def test_text_becomes_code_points(tmp_path):
    write(tmp_path, role={"x": ["To be", "o be "], "y": [" ", "ö"], "raw": "ignored"})
    examples = leaf(tmp_path, test=0).train.examples
    assert examples["x"].tolist() == [[84, 111, 32, 98, 101], [111, 32, 98, 101, 32]]
    assert examples["y"].tolist() == [32, 246]
    assert examples["x"].dtype == examples["y"].dtype == np.int32


def test_text_of_several_characters_as_target(tmp_path):
    write(tmp_path, role={"x": ["ab"], "y": ["bc"]})
    assert leaf(tmp_path, test=0).train.examples["y"].tolist() == [[98, 99]]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"x": ["abc", "ab"], "y": ["d", "c"]}, "x of user 'u' in .*shard.json is text of unequal lengths or empty"),
        ({"x": [""], "y": [1]}, "x of user 'u' in .*shard.json is text of unequal lengths or empty"),
        (
            {"x": ["000001.jpg"], "y": [1]},
            "x of user 'u' in .*shard.json names image files .'000001.jpg'.: give images=, the folder that holds them",
        ),
        ({"x": [["id", "text"]], "y": [1]}, "x of user 'u' in .*shard.json must be a list of numbers, got str"),
        ({"x": [[1.0], "a"], "y": [1, 2]}, "x of user 'u'"),
        ({"x": [[None]], "y": [1]}, "x of user 'u' in .*shard.json must be a list of numbers, got NoneType"),
        ({"x": [{"a": 1}], "y": [1]}, "x of user 'u' in .*shard.json must be a list of numbers, got dict"),
        ({"x": [[1.0], [1.0, 2.0]], "y": [1, 2]}, "x of user 'u' in .*shard.json is ragged"),
        ({"x": [[1e300]], "y": [1]}, "x of user 'u' in .*shard.json holds NaN, Inf or a number beyond float32"),
        ({"x": [["1.0"]], "y": [1]}, "x of user 'u' in .*shard.json must be a list of numbers, got str"),
        ({"x": [[]], "y": [1]}, "x of user 'u' in .*shard.json is empty"),
        ({"x": [[float("nan")]], "y": [1]}, "shard.json holds NaN or Infinity, which is no JSON .*: clean or drop such examples"),
        ({"x": [[-float("inf")]], "y": [1]}, "shard.json holds NaN or Infinity, which is no JSON"),
        ({"x": [[1.0]], "y": {"target_tokens": [1]}}, 'user \'u\' in .*shard.json must have a list "x" and a list "y"'),
        ({"x": [[1.0]], "y": [2**40]}, "y of user 'u' in .*shard.json goes from 1099511627776"),
        ({"x": [], "y": []}, "user 'u' in .*shard.json has no examples: remove it"),
        ({"x": [[1.0], [2.0]], "y": [1]}, "user 'u' in .*shard.json has 2 x and 1 y, num_samples says 1: the file is damaged"),
        ({"x": [[1.0, 2.0]], "y": [1]}, r"x has the shape \[2\] at user 'u' in .* and \[1\] at user 'a'"),
    ],
)
def test_bad_users_are_named(tmp_path, data, message):
    write(tmp_path, a={"x": [[1.0]], "y": [1]}, u=data)
    with pytest.raises(DataError, match=message):
        leaf(tmp_path)


def test_invert_of_text(tmp_path):
    write(tmp_path, a={"x": ["abc"], "y": ["d"]})
    with pytest.raises(DataError, match="invert=True is for numbers, x of user 'a' in .*shard.json is text"):
        leaf(tmp_path, invert=True)


def test_a_file_cut_off_at_any_byte_is_named(tmp_path):
    file = write(tmp_path, a=user(2), b=user(1))
    whole = file.read_bytes()
    for end in range(0, len(whole), 7):
        file.write_bytes(whole[:end])
        with pytest.raises(DataError, match=r"shard.json is not complete JSON .*: it is cut off or damaged, copy it again"):
            leaf(tmp_path)


def test_binary_rubbish_is_named(tmp_path):
    write(tmp_path, a=user(2)).write_bytes(b"\xff\xfe\x00\x80")
    with pytest.raises(DataError, match="shard.json is not complete JSON"):
        leaf(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda shard: shard.pop("num_samples"), 'is not a LEAF file: it has no "num_samples"'),
        (lambda shard: shard.pop("user_data"), 'it has no "user_data"'),
        (lambda shard: shard["num_samples"].__setitem__(1, 5), "user 'b' in .* has 1 x and 1 y, num_samples says 5"),
        (lambda shard: shard["user_data"]["b"]["y"].append(1), "user 'b' in .* has 1 x and 2 y, num_samples says 1"),
        (lambda shard: shard["num_samples"].pop(), "lists 2 users and 1 num_samples for the data of 2 users"),
        (lambda shard: shard["users"].append("a"), "lists 3 users"),
        (lambda shard: shard.update(users=5), 'shard.json is not a LEAF file: "users" is 5, not a list'),
        (lambda shard: shard["users"].__setitem__(1, {}), r'shard.json is not a LEAF file: "users".1. is a dict, not a name'),
        (lambda shard: shard["users"].__setitem__(0, ["a"]), r'shard.json is not a LEAF file: "users".0. is a list, not a name'),
        (lambda shard: shard.update(num_samples=0.5), 'shard.json is not a LEAF file: "num_samples" is 0.5, not a list'),
        (lambda shard: shard["num_samples"].__setitem__(0, None), r'shard.json is not a LEAF file: "num_samples".0. is null, not a number'),
        (lambda shard: shard["num_samples"].__setitem__(0, 0.5), "user 'a' in .*shard.json has 2 x and 2 y, num_samples says 0.5"),
        (lambda shard: shard.update(user_data=False), 'shard.json is not a LEAF file: "user_data" is false, not a table'),
        (lambda shard: shard["user_data"].pop("b"), "lists 2 users and 2 num_samples for the data of 1 users"),
        (lambda shard: shard["user_data"]["b"].pop("y"), "user 'b' in .* must have a list"),
    ],
)
def test_damaged_shards_are_named(tmp_path, change, message):
    edit(write(tmp_path, a=user(2), b=user(1)), change)
    with pytest.raises(DataError, match=message):
        leaf(tmp_path)


def test_json_that_is_no_shard(tmp_path):
    (tmp_path / "list.json").write_text("[1, 2]")
    with pytest.raises(DataError, match="list.json is not a LEAF file: it holds a list"):
        leaf(tmp_path)
    (tmp_path / "list.json").write_text("[" * 100_000 + "]" * 100_000)
    with pytest.raises(DataError, match="list.json is not complete JSON .depth limit exceeded"):
        leaf(tmp_path)


def test_lists_as_deep_as_json_may_be(tmp_path):
    tweet = ["id", "date", "query", "name", "text", "tag"]
    for x in ("[" * 1000 + "]" * 1000, f"[{json.dumps(tweet)}, {'[' * 1000 + ']' * 1000}]"):
        number = 1 if x.startswith("[[[") else 2
        shard = f'{{"users": ["a"], "num_samples": [{number}], "user_data": {{"a": {{"x": {x}, "y": {[1] * number}}}}}}}'
        (tmp_path / "deep.json").write_text(shard)
        with pytest.raises(DataError, match="x of user 'a' in .*deep.json"):
            leaf(tmp_path)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.lists(st.floats(-3e38, 3e38) | st.integers(-(2**63), 2**64 - 1) | st.booleans(), min_size=3, max_size=3), min_size=1))
def test_numbers_are_pythons(tmp_path_factory, x):
    folder = tmp_path_factory.mktemp("leaf")
    write(folder, a={"x": x, "y": [0] * len(x)})
    expected = np.array([[float(value) for value in row] for row in x])
    for invert, values in ((False, expected), (True, 1 - expected)):
        data = leaf(folder, test=0, invert=invert)
        np.testing.assert_array_equal(np.asarray(data.train.examples["x"]), values.astype(np.float32))


def test_rows_of_rows(tmp_path):
    write(tmp_path, a={"x": [[[1, 2], [3, 4]]], "y": [0]})
    assert leaf(tmp_path, test=0).train.examples["x"].tolist() == [[[1, 2], [3, 4]]]


def test_a_user_in_two_shards(tmp_path):
    write(tmp_path, "one.json", a=user(2))
    write(tmp_path, "two.json", a=user(1))
    with pytest.raises(DataError, match="user 'a' is both in .*one.json and in .*two.json: remove one of them"):
        leaf(tmp_path)


def test_folders_that_are_not_there_or_empty(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"path='.*nowhere' is not a folder: give the one that holds train/ and test/"):
        leaf(tmp_path / "nowhere")
    with pytest.raises(DataError, match=r"holds no \*.json files"):
        leaf(tmp_path)
    (tmp_path / "train").mkdir()
    with pytest.raises(DataError, match=r"train holds no \*.json files"):
        leaf(tmp_path)
    write(tmp_path / "train", a=user(1))
    write(tmp_path / "test", a=user(0))
    with pytest.raises(DataError, match="test holds no examples"):
        leaf(tmp_path)


@pytest.mark.parametrize("target", ["/dev/zero", "nowhere", "."])
def test_a_link_to_what_is_no_file(tmp_path, target):
    write(tmp_path, a=user(2))
    (tmp_path / "b.json").symlink_to(target)
    with pytest.raises(DataError, match="b.json is no regular file: put the file itself there"):
        leaf(tmp_path)


@pytest.mark.deep
def test_real_femnist(femnist):
    data = leaf(femnist)
    train, test = np.asarray(data.train.size), np.asarray(data.test.size)
    assert data.train.population == data.test.population == 75
    assert (train.sum(), test.sum()) == (10040, 1150)
    assert (train.min(), np.median(train), train.max()) == (7, 146, 164)
    assert data.train.examples["x"].shape == (10040, 784)
    assert sorted(set(data.train.examples["y"].tolist())) == list(range(62))
    corner = np.asarray(data.train.examples["x"])[:, 0]
    assert np.mean(corner == 1) > 0.99  # the page is 1

    # one writer, read again by hand
    shard = json.loads(next(iter(sorted((femnist / "train").glob("*_14_*.json")))).read_bytes())
    names = sorted(name for file in (femnist / "train").glob("*.json") for name in json.loads(file.read_bytes())["users"])
    row = names.index("f3517_27")
    np.testing.assert_array_equal(data.train.client(row)["x"], np.array(shard["user_data"]["f3517_27"]["x"], np.float32))
    np.testing.assert_array_equal(data.train.client(row)["y"], shard["user_data"]["f3517_27"]["y"])


@pytest.mark.parametrize("name", ['a"b', "a\\", 'a\\"{', "}{", '\\\\"', "ü{"])
def test_users_are_cut_out_at_braces_outside_of_strings(tmp_path, name):
    """Names, and words among the examples, may hold quotes, braces and backslashes."""
    users = {name: {"x": [[name, "}", "q", "{", f"red {name}", '"{']], "y": [0]}, "z": {"x": [["1", "d", "q", "z", "red", "t"]], "y": [1]}}
    for ascii in (True, False):
        shard = {"users": [*users], "num_samples": [1, 1], "meta": {"a": {"b": {}}}, "user_data": users}
        (tmp_path / "a.json").write_text(json.dumps(shard, ensure_ascii=ascii))
        data = leaf(tmp_path, length=2, test=0)
        assert sorted(data.names) == sorted(users) and data.train.size.tolist() == [1, 1]
        assert sorted(data.train.examples["y"].tolist()) == [0, 1]


NAMES = st.text(alphabet='a"\\\\{}[]:, \u00fc\n', max_size=6)


@given(st.dictionaries(NAMES, st.dictionaries(NAMES, NAMES | st.lists(NAMES, max_size=2), max_size=3), max_size=4), st.booleans())
def test_where_users_objects_lie(users, ascii):
    text = json.dumps({"users": [*users], "user_data": users}, ensure_ascii=ascii).encode()
    assert [json.loads(text[begin:end]) for begin, end in leaf_shard._objects(io.BytesIO(text))] == [*users.values()]


def test_a_shard_is_not_held_whole_as_objects(tmp_path):
    """The numbers of all users at once would take eight times the arrays, and the text twice."""
    users = {f"u{k}": {"x": [[0.123] * 1000] * 20, "y": [0] * 20} for k in range(40)}
    (tmp_path / "a.json").write_text(json.dumps({"users": [*users], "num_samples": [20] * 40, "user_data": users}))
    del users
    leaf(tmp_path, test=0)
    with taking_at_most(3 * 40 * 20 * 1000 * 4):
        leaf(tmp_path, test=0)
