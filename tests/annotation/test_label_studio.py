import json

import numpy as np
import pytest

from fedimb.annotation.items import read_map

ROWS = np.array([9, 3, 5, 7, 1, 4])
NAMES = ("benign", "+ve", "1-2")


@pytest.fixture
def store(pictures):
    return pictures()


@pytest.mark.parametrize("form", ["JSON", "JSON-MIN", "CSV"])
def test_label_studio_exports_come_back(folder, store, form, oracle):
    asking = oracle(folder, store)
    asking.ask(ROWS, 1)
    tasks = json.loads((folder / "cycle-01" / "label-studio.json").read_text())
    path = folder / "cycle-01" / "returned" / ("export.csv" if form == "CSV" else "export.json")
    names = ["benign", "+ve", "1-2", "cannot judge", "benign", "benign"]
    pairs = list(zip(tasks, names, strict=True))
    if form == "CSV":
        rows = [f"{n},2,{n + 50},x.png,{t['data']['item']},{a}" for n, (t, a) in enumerate(pairs)]
        path.write_text("annotation_id,annotator,id,image,item,label\n" + "\n".join(rows))
    elif form == "JSON-MIN":
        flat = [{**t["data"], "id": 50 + n, "annotator": 2, "label": a} for n, (t, a) in enumerate(pairs)]
        path.write_text(json.dumps(flat))
    else:
        whole = []
        for number, (task, name) in enumerate(pairs):
            result = [{"from_name": "label", "to_name": "shown", "type": "choices", "value": {"choices": [name]}}]
            other = [{**result[0], "value": {"choices": ["1-2" if name != "1-2" else "benign"]}}]
            skipped = {"was_cancelled": True, "result": other, "completed_by": 2}
            done = {"was_cancelled": False, "result": result, "completed_by": {"email": "anna@example.org"}}
            whole.append({"id": number, **task, "annotations": [skipped, done], "predictions": []})
        path.write_text(json.dumps(whole))
    answers = asking.collect(1)
    row_of = {item.id: item.row for item in read_map(folder)}
    expected = {row_of[t["data"]["item"]]: NAMES.index(a) for t, a in pairs if a in NAMES}
    assert dict(zip(answers.rows.tolist(), answers.labels.tolist(), strict=True)) == expected
    assert len(answers.unjudged) == 1


def test_two_readers_in_one_label_studio_export(folder, store, oracle):
    asking = oracle(folder, store, readers=2)
    asking.ask(ROWS[:1], 1)

    def said(name, who):
        return {"result": [{"from_name": "label", "value": {"choices": [name]}}], "completed_by": who}

    task = {"id": 1, "data": {"item": "w-00001"}, "annotations": [said("benign", 3), said("benign", 5)]}
    (folder / "cycle-01" / "returned" / "export.json").write_text(json.dumps([task]))
    answers = asking.collect(1)
    assert (answers.rows.tolist(), answers.labels.tolist()) == ([9], [0])
    assert json.loads((folder / "imported-01.json").read_text())["kappa"] is None


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("{", "line 1: not JSON"),
        ("{}", "not a list of tasks"),
        ('[{"data": {"image": "x"}, "annotations": []}]', "task 1: has no 'item'"),
        ("[3]", "task 1: has no 'item'"),
        ('[{"item": "w-00001", "label": {"choices": ["benign", "1-2"]}}]', "2 answers (benign, 1-2); choose one"),
        ('[{"item": "w-00001", "label": "malign"}]', "export.json task 1 (w-00001): 'malign' is not a class"),
        ('[{"item": "w-00009", "label": "benign"}]', "unknown id 'w-00009'"),
    ],
)
def test_exports_that_do_not_fit_are_told(folder, store, content, says, oracle):
    asking = oracle(folder, store)
    asking.ask(ROWS, 1)
    (folder / "cycle-01" / "returned" / "export.json").write_text(content)
    assert asking.collect(1) is None
    assert says in (folder / "problems-01.txt").read_text()
