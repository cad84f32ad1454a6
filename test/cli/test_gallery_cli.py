from __future__ import annotations

import json

import pytest
from gallery_helpers import face, open_gallery, sql, template, templates

from face_recognition_node.cli import main
from face_recognition_node.gallery.gallery import Provenance


@pytest.fixture
def path(tmp_path, rng, monkeypatch):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "share"))
    file = tmp_path / "data" / "gallery.db"
    with open_gallery(file) as gallery:
        gallery.add_person("Jane", templates(rng, 3))
        gallery.add_person("Bob", [*templates(rng, 1), template(face(rng), provenance=Provenance.ADAPTED)])
        gallery.add_person("", templates(rng, 1), is_stranger=True)
    return file


@pytest.fixture
def do(path, capsys):
    """Run a verb; return the exit code, and the JSON answer or the error text."""

    def run(*words):
        code = main(["gallery", *words, "--gallery", str(path), "--json"])
        captured = capsys.readouterr()
        return code, json.loads(captured.out) if captured.out else captured.err

    return run


def names(answer):
    return [person["name"] for person in answer["persons"]]


def test_list(do, path, capsys):
    code, answer = do("list", "--templates")
    assert code == 0
    assert names(answer) == ["Bob", "Jane", ""]
    assert answer["n_templates"] == 6
    assert len(answer["templates"]) == 6
    assert answer["version"] == 3
    assert main(["gallery", "list", "--gallery", str(path)]) == 0
    text = capsys.readouterr().out
    assert "Jane" in text
    assert "2 (1 enrolled, 1 adapted)" in text
    assert "(stranger)" in text


def test_rename_by_name_id_and_part_of_an_id(do):
    assert do("rename", "jane", "Jayne")[1]["person"]["name"] == "Jayne"
    assert do("rename", "stranger-1", "Carl")[1]["person"]["is_stranger"] is False
    person_id = do("rename", "Carl", "Karl")[1]["person"]["person_id"]
    assert person_id.startswith("p-")
    for former_id in ("strang", "stranger-1"):
        assert do("rename", former_id, "Carl")[1]["person"]["person_id"] == person_id
    code, error = do("rename", "Nobody", "x")
    assert code == 2
    assert "nobody has" in error


@pytest.mark.parametrize(
    "words",
    [
        ("forget", "", "--final"),
        ("forget", " "),
        ("forget", "--session", ""),
        ("rename", "", "Carl"),
        ("merge", "Jane", ""),
        ("rollback", ""),
        ("export", "out.frg", "--only", ""),
    ],
)
def test_an_empty_text_is_nobody_and_not_the_nameless_stranger(do, words):
    with pytest.raises(SystemExit) as ended:
        do(*words)
    assert ended.value.code == 2
    answer = do("list")[1]
    assert (names(answer), answer["n_templates"]) == (["Bob", "Jane", ""], 6)


def test_a_stranger_who_is_gone_is_not_one_of_a_longer_number(do, path, rng):
    with open_gallery(path) as gallery:
        for _ in range(11):
            gallery.add_person("", templates(rng, 1), is_stranger=True)
    assert do("forget", "stranger-1")[0] == 0
    for number in range(2, 12):
        assert do("forget", f"stranger-{number}")[0] == 0
    code, error = do("forget", "stranger-1")  # stranger-12 is the only one left that begins so
    assert code == 2
    assert "nobody has" in error
    code, error = do("forget", "str")
    assert code == 2
    assert "nobody has" in error
    assert do("forget", "stran")[1]["forgotten"][0]["person_id"] == "stranger-12"


def test_a_name_that_two_people_bear_is_not_guessed(do):
    do("rename", "Bob", "Jane")
    code, error = do("forget", "Jane")
    assert code == 2
    assert error.count("p-") == 2


def test_merge_split_remove_rollback(do):
    before = {person["name"]: person for person in do("list")[1]["persons"]}
    merged = do("merge", "Jane", "Bob", "stranger-1")[1]["person"]
    assert merged["n_templates"] == 6
    assert len(merged["aliases"]) == 2
    one = str(before["Bob"]["template_ids"][0])
    assert do("split", one, "--name", "Bob again")[1]["person"]["name"] == "Bob again"
    assert do("remove", str(before["Jane"]["template_ids"][0]))[1]["persons"][0]["n_templates"] == 4
    assert do("rollback", "Jane")[1]["n_templates"] == 1
    assert do("rollback")[1]["n_templates"] == 0
    assert do("remove", "999")[0] == 2


def test_forget_undo_redo_history(do):
    code, answer = do("forget", "Jane", "Bob")
    assert code == 0
    assert {person["name"] for person in answer["forgotten"]} == {"Jane", "Bob"}
    assert do("undo")[1]["undone"] == ["forget Jane, Bob"]
    assert do("redo")[1]["redone"] == ["forget Jane, Bob"]
    assert do("undo")[0] == 0
    assert [entry["is_done"] for entry in do("history")[1]["changes"]] == [True, True, False]
    assert do("forget", "--all", "--final")[0] == 0
    assert do("history")[1]["changes"] == []
    code, error = do("undo")
    assert code == 2
    assert "nothing to undo" in error
    for wrong in (["forget"], ["forget", "Jane", "--all"], ["forget", "--session", "unknown"]):
        assert do(*wrong)[0] == 2


def test_sessions(do):
    answer = do("session", "party", "--kind", "event", "--time-to-live", "60")[1]
    assert answer["session"] == {"name": "party", "kind": "event", "time_to_live_s": 60.0}
    assert do("session")[1]["session"]["name"] == "party"
    assert do("session", "")[1]["session"]["name"] == ""
    assert do("forget", "--session", "party")[1]["forgotten"] == []


def test_export_and_import_into_a_new_gallery(do, tmp_path, capsys):
    file = tmp_path / "people.db"
    assert do("export", str(file))[1]["n_persons"] == 3
    assert do("export", str(file))[0] == 2
    assert do("export", str(file), "--overwrite", "--only", "Jane")[1]["n_persons"] == 1
    other = tmp_path / "other" / "gallery.db"
    assert main(["gallery", "import", str(file), "--gallery", str(other), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["n_templates"] == 3
    assert do("import", str(file), "--on-conflict", "skip")[1]["n_skipped"] == 3
    assert do("import", str(file), "--on-conflict", "refuse")[0] == 2
    assert do("import", str(tmp_path / "missing.db"))[0] == 2


def test_verify_says_so_by_its_exit_code(do, path):
    assert do("verify")[0] == 0
    sql(path, "UPDATE templates SET quality = 7")
    code, answer = do("verify")
    assert code == 1
    assert len(answer["problems"]) == 6


@pytest.mark.parametrize("words", [["list"], ["rename", "a", "b"], ["forget", "--all"], ["verify"]])
def test_a_missing_gallery_is_named_and_not_made(tmp_path, capsys, words):
    path = tmp_path / "none.db"
    assert main(["gallery", *words, "--gallery", str(path)]) == 2
    assert str(path) in capsys.readouterr().err
    assert not path.exists()


def test_every_verb_prints_text_too(path, tmp_path, capsys):
    export = str(tmp_path / "x.db")
    lines = "list --templates|rename Jane Jayne|session|session a|history|undo|redo|merge Jayne Bob|split 1"
    for words in (
        *lines.split("|"),
        "remove 2",
        "rollback",
        "verify",
        f"export {export}",
        f"import {export}",
        "list",
    ):
        words = words.split()
        assert main(["gallery", *words, "--gallery", str(path)]) == 0, words
        assert capsys.readouterr().out.strip(), words


@pytest.mark.slow
def test_the_benchmark_prints_json(tmp_path, capsys, monkeypatch):
    assert main(["benchmark", "gallery", "--sizes", "50", "--repeats", "2", "--json", "--no-progress"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["sizes"][0]["n_templates"] == 50
    assert answer["machine"]["cores"] >= 1
    assert main(["benchmark", "gallery", "--sizes", "0"]) == 2


def test_more_steps_than_there_are_is_told_as_that(do):
    n_able = len(do("history")[1]["history"]) if "history" in do("history")[1] else 2
    code, answer = do("undo", "99")
    assert code == 2
    assert f"only {n_able} changes can be undone, 99 were asked for" in answer


def test_a_name_is_found_in_whichever_unicode_form_it_is_typed(do):
    assert do("rename", "Bob", "Zoe\u0308")[0] == 0
    code, answer = do("rename", "Zo\u00eb", "Zoe")
    assert code == 0, answer


def test_reembed_takes_the_network_that_settings_choose(path, capsys):
    code = main(["gallery", "reembed", "--gallery", str(path), "--set", "models.embedder=none_such"])
    assert code == 2
    assert "none_such" in capsys.readouterr().err
