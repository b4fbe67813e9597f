"""What other users of the machine may ask of NNI's real manager: no files, no token, no trial of their own."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import stand_in
from bare import Bare, ask, group, until

from autoseg.job import Job
from autoseg.nnibridge.forks import TrialForks
from autoseg.nnibridge.manager import Manager

UP = "..%2f" * 20
REFUSED = (403, "refused by autoseg\n")
STRANGE = [
    f"/{UP}proc/self/environ",
    f"/{UP}proc%2fself%2fenviron",
    "/%2e%2e%2f%2E%2E%2Fdb%2fnni.sqlite",
    "/..%252f..%252fdb%252fnni.sqlite",
    "/%25252e%25252e%25252fdb",
    "/%2525252525252e%2525252525252e",
    "/../trial.stdout",
    "/..%5c..%5cdb",
    "/stdout%00",
    "/stdout\\..",
    "/%c0%ae%c0%ae%2fdb",
    "/.%2e/../db",
    "/secret.txt",
    "/.%2fsecret.txt",
    "/%2fetc%2fpasswd",
    "/",
]
ELSEWHERE = [
    "/logs/..%2fdb%2fnni.sqlite",
    "/logs/%2e%2e/db/nni.sqlite",
    "/..%2fpackage.json",
    "/static/..%252f..%252fpackage.json",
    "/netron/..%2f..",
    "/api/v1/nni/trial-file/..%2f..%2fdb/stdout",
    "/api/v1/nni/trial-file/a%2fb/stdout",
    "/API/v1/nni/Trial-File/abcde/secret.txt",
    "http://localhost/api/v1/nni/trial-file/abcde/..%2f..%2fdb%2fnni.sqlite",
]


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bare]:
    with Bare(tmp_path_factory.mktemp("nni")) as found:
        yield found


@pytest.fixture(scope="module")
def trial(bare: Bare) -> str:
    """A trial that runs."""
    _, trial = bare.running({"sleep": 600})
    assert until(lambda: ask(bare.manager.port, "GET", f"/api/v1/nni/trial-file/{trial}/stdout")[1] == "at work\n") < 15
    return trial


@pytest.mark.parametrize("path", STRANGE)
def test_no_file_but_the_output_of_a_trial(bare: Bare, trial: str, path: str) -> None:
    (bare.manager.folder / "environments" / "local-env" / "trials" / trial / "secret.txt").write_text("secret")
    assert ask(bare.manager.port, "GET", f"/api/v1/nni/trial-file/{trial}{path}") == REFUSED


@pytest.mark.parametrize("path", ELSEWHERE)
def test_no_other_way_up(bare: Bare, path: str) -> None:
    assert ask(bare.manager.port, "GET", path) == REFUSED
    assert bare.manager.alive


def test_a_link_does_not_lead_out_of_the_folder_of_a_trial(bare: Bare, trial: str) -> None:
    folder = bare.manager.folder / "environments" / "local-env" / "trials" / trial
    (folder.parent / "neighbour").mkdir()
    (folder.parent / "neighbour" / "secret.txt").write_text("secret")
    (folder / "secret.txt").write_text("the trial's own")
    answers = {}
    for target in ("../neighbour/secret.txt", "/etc/passwd", "secret.txt"):
        (folder / "trial.log").symlink_to(target)
        answers[target] = ask(bare.manager.port, "GET", f"/api/v1/nni/trial-file/{trial}/trial.log")
        (folder / "trial.log").unlink()
    outside = (500, json.dumps({"error": f"trial.log is not in the folder of trial {trial}"}, separators=(",", ":")))
    assert answers == {
        "../neighbour/secret.txt": outside,
        "/etc/passwd": outside,
        "secret.txt": (200, "the trial's own"),
    }


def test_the_token_is_nowhere_in_proc(bare: Bare, trial: str) -> None:
    token = bare.manager.token.encode()
    members = group(bare.manager.pid)
    assert len(members) >= 2  # the manager and the trial
    for pid in members:
        for name in ("environ", "cmdline"):
            told = Path(f"/proc/{pid}/{name}").read_bytes()
            assert told and token not in told
    assert token not in (bare.manager.folder.parent / "manager.log").read_bytes()
    with_it = {"x-autoseg-token": bare.manager.token}
    assert ask(bare.manager.port, "POST", "/api/v1/nni/experiment/import-data", "[]", **with_it)[0] == 200


@pytest.mark.parametrize("slots", ["0", "-1", "1025", "2.5", '"2"', '"x"', "{}", "null", "true", "1e400"])
def test_concurrency_is_a_whole_number(bare: Bare, slots: str) -> None:
    place = "/api/v1/nni/experiment?update_type=TRIAL_CONCURRENCY"
    for body in (f'{{"params": {{"trialConcurrency": {slots}}}}}', "{}", '{"params": null}'):
        status, text = ask(bare.manager.port, "PUT", place, body)
        assert (status, json.loads(text)["error"][:16]) == (400, "trialConcurrency")
    profile = json.loads(ask(bare.manager.port, "GET", "/api/v1/nni/experiment")[1])
    assert profile["params"]["trialConcurrency"] == 2


def test_a_trial_that_asks_again_gets_the_same_parameters(bare: Bare) -> None:
    todo = {"again": True, "code": "E=[0]", "reports": ["0"], "sleep": 1}
    number = bare.channel.submit(todo)
    bare.wait(lambda: any(one[0] == number for one in bare.metrics))
    trial = next(one[1] for one in bare.metrics if one[0] == number)
    assert bare.status(number) == ["SUCCEEDED"]
    (first, second) = next(one[3] for one in bare.metrics if one[0] == number and one[2] == "FINAL")
    assert first == second and (first["parameter_id"], first["parameters"]) == (number, todo)
    channel = f"/env/local-env/{trial}"  # when it has ended there is nothing more to take
    assert ask(bare.manager.port, "PUT", channel, '{"type": "request_parameter"}') == (200, "")
    assert ask(bare.manager.port, "GET", channel)[0] == 408


def test_a_page_that_is_seen_again_is_guarded_alike(tmp_path: Path) -> None:
    with Bare(tmp_path) as bare:
        _, trial = bare.running({})
    manager = Manager.view(tmp_path, bare.manager.experiment)
    try:
        for path in STRANGE:
            assert ask(manager.port, "GET", f"/api/v1/nni/trial-file/{trial}{path}") == REFUSED
        for path in ELSEWHERE:
            assert ask(manager.port, "GET", path) == REFUSED
        assert ask(manager.port, "GET", f"/api/v1/nni/trial-file/{trial}/stdout") == (200, "at work\n")
        assert manager.token.encode() not in Path(f"/proc/{manager.pid}/environ").read_bytes()
        assert ask(manager.port, "POST", "/api/v1/nni/trial-jobs", "{}") == REFUSED
    finally:
        manager.stop()


def test_a_trial_that_somebody_has_added_is_nothing_to_the_run(tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    told: list[tuple[int, str, str]] = []
    forks = TrialForks(run, 1, lambda *message: told.append(message[:3]), work=stand_in.pretended)
    try:
        with Bare(run / "nni", command=forks.command) as bare:
            job = Job("training", "unet").to_json()
            assert bare.status(bare.channel.submit(job)) == ["SUCCEEDED"]
            marked = {**job, "label": {"__nni_obj__": "gASVCgAAAAAAAAA="}}
            for parameters in (job, marked):
                bare.manager._node.request("POST", "/trial-jobs", parameters)
            until(lambda: [one["status"] for one in bare.manager.trials()].count("FAILED") == 2)
            after = bare.channel.submit(job)
            assert after == 1 and bare.status(after) == ["SUCCEEDED"]
            trials = {one["sequenceId"]: one for one in bare.manager.trials()}
            assert [trials[number]["status"] for number in range(4)] == ["SUCCEEDED", "FAILED", "FAILED", "SUCCEEDED"]
            for number in (1, 2):
                place = f"/api/v1/nni/trial-file/{trials[number]['trialJobId']}/stderr"
                assert "not one of the run's own" in ask(bare.manager.port, "GET", place)[1]
            assert {(number, trial) for number, trial, _ in told} == {(0, bare.ends[0][0]), (1, bare.ends[1][0])}
            assert [number for number, _, kind in told if kind == "done"] == [0, 1]
            assert bare.ends[1][0] == trials[3]["trialJobId"] and sorted(bare.ends) == [0, 1] and bare.lost == []
    finally:
        forks.stop()
