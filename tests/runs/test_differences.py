from acf.runs.differences import differences, in_words
from acf.runs.recipe import recipe_parts

CODE = {"flows/flow.py": "1", "flows/logit.py": "1", "training/loop.py": "1", "training/old.py": "1"}
SETTINGS = {"seed": 0, "training": {"steps": 12, "ema": 0.5}, "odd": {}}
BEFORE = recipe_parts("train", SETTINGS, {"train": "ab" * 32}, CODE)


def test_equal_recipes_do_not_differ() -> None:
    assert differences(BEFORE, BEFORE) == []


def test_every_setting_input_and_file_is_named_with_both_values() -> None:
    settings = {"seed": 0, "training": {"steps": 13, "keep": "best"}, "odd": {"x": [1, 2]}}
    code = {**CODE, "flows/flow.py": "2", "training/new.py": "1"}
    del code["training/old.py"]
    after = recipe_parts("train", settings, {"train": "cd" * 32}, code)
    found = differences(BEFORE, after)
    assert sorted((one.kind, one.name, one.before, one.now) for one in found) == [
        ("code", "flows/flow.py", "1", "2"),
        ("code", "training/new.py", None, "1"),
        ("code", "training/old.py", "1", None),
        ("input", "train", "ab" * 32, "cd" * 32),
        ("settings", "odd.x", None, [1, 2]),
        ("settings", "training.ema", 0.5, None),
        ("settings", "training.keep", None, "best"),
        ("settings", "training.steps", 12, 13),
    ]
    words = in_words(found)
    assert "training.steps was 12 and is 13" in words
    assert "training.ema was 0.5 and is not set" in words
    assert "the input `train` has another content (abababab, now cdcdcdcd)" in words
    assert words[-1] == "code differs in flows/flow.py, training/new.py (new), training/old.py (no longer used)"


def test_many_files_are_named_by_their_folders() -> None:
    after = recipe_parts("train", {}, {}, {name: "2" for name in CODE})
    assert in_words(differences(BEFORE, after))[-1] == "code differs in flows (2 files), training (2 files)"
