import os
import shutil
import signal
from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import pytest
from click.testing import CliRunner

from twinguide.app import run_scenario
from twinguide.cli import main
from twinguide.errors import BusError, CaseError, HeadsetError, PluginError, RecordingError, ScenarioError
from twinguide.folder import earlier_kept, make_folder
from twinguide.hosting.printing import printed_to
from twinguide.preparing import Run, exposure_hz, named_files, prepare_case
from twinguide.scenario import Placement, Registered, find, overridden


def puncture(registry, *settings):
    return overridden(find("liver_puncture", registry), settings)


def test_a_folder_that_a_run_writes_is_refused_and_left_alone_until_the_run_ends(tmp_path):
    out = tmp_path / "session"
    with make_folder(out):
        (out / "session.mcap").write_text("first")
        with pytest.raises(ScenarioError, match="another run writes"):
            make_folder(out)
        assert (out / "session.mcap").read_text() == "first"
        asked = CliRunner().invoke(main, ["report", str(out)])
        assert asked.exit_code == 1
        assert "a session that has ended" in asked.output
        assert not (out / "report.html").exists()
    with make_folder(out), earlier_kept(out):
        assert not (out / "session.mcap").exists()


def test_the_session_before_is_kept_and_put_back_where_the_new_one_does_not_begin(tmp_path):
    def begin(told):
        with make_folder(tmp_path), earlier_kept(tmp_path):
            (tmp_path / "logs").mkdir()
            (tmp_path / "session.mcap").write_text(told)
            if told == "refused":
                raise CaseError("a case")

    def there():
        files = [file for file in tmp_path.rglob("*") if file.is_file() and file.name != ".twinguide-session"]
        return {str(file.relative_to(tmp_path)): file.read_text() for file in files}

    begin("first")
    assert there() == {"session.mcap": "first"}
    for _ in range(2):
        with pytest.raises(CaseError):
            begin("refused")
        assert there() == {"session.mcap": "first"}
    begin("second")
    assert there() == {"session.mcap": "second", "previous/session.mcap": "first"}
    with pytest.raises(CaseError):
        begin("refused")
    assert there() == {"session.mcap": "second", "previous/session.mcap": "first"}
    begin("third")
    assert there() == {"session.mcap": "third", "previous/session.mcap": "second"}


def test_the_log_that_an_error_of_the_start_names_stays_where_it_says(tmp_path):
    def begin(told):
        with make_folder(tmp_path), earlier_kept(tmp_path):
            log = tmp_path / "logs" / "hub.log"
            log.parent.mkdir()
            log.write_text(told)
            if told != "all is well":
                raise BusError("a hub that starts", "no word", str(log), "Look there.")

    for earlier in (set(), {"logs"}):  # without a session before, and beside one
        for _ in range(2):
            with pytest.raises(BusError, match=r"Look there") as refused:
                begin("no room for sockets")
            assert Path(refused.value.where).read_text() == "no room for sockets"
        assert {file.name for file in tmp_path.iterdir()} == {".twinguide-session", "failed", *earlier}
        begin("all is well")
        assert (tmp_path / "logs" / "hub.log").read_text() == "all is well"
        assert not (tmp_path / "failed").exists()


@pytest.mark.parametrize(
    "error",
    [
        PluginError("a part", "ValueError: no cable", "part tip", "Look."),
        CaseError("a case"),
        RuntimeError("a bug"),
        KeyboardInterrupt(),
    ],
)
def test_what_a_start_that_fails_has_logged_is_kept_and_told(tmp_path, error):
    def begin(printed):
        with make_folder(tmp_path), earlier_kept(tmp_path), printed_to(tmp_path / "logs" / "loop.log"):
            print(printed, end="")
            raise error

    log = tmp_path / "failed" / "loop.log"
    with pytest.raises(type(error)) as quiet:
        begin("")
    assert {file.name for file in tmp_path.iterdir()} == {".twinguide-session"}
    for printed in ("first", "second"):
        with pytest.raises(type(error)) as refused:
            begin(printed)
        assert log.read_text() == printed
    told = str(refused.value).removeprefix(str(quiet.value)) or refused.value.__notes__[-1]
    assert told.removeprefix(". ").strip() == f"What was logged is in {log.parent}."


def test_a_run_that_is_killed_while_it_starts_costs_no_earlier_session(tmp_path):
    def run(text, end=lambda: None):
        with make_folder(tmp_path), earlier_kept(tmp_path):
            (tmp_path / "session.mcap").write_text(text)
            end()

    def killed(text):
        child = os.fork()
        if not child:
            run(text, lambda: os.kill(os.getpid(), signal.SIGKILL))
        assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGKILL

    killed("of the first start")
    run("first")
    run("second")
    killed("of a start")
    killed("of another start")
    run("third")
    assert (tmp_path / "session.mcap").read_text() == "third"
    assert (tmp_path / "previous/session.mcap").read_text() == "second"
    killed("of the last start")
    with pytest.raises(CaseError):
        run("refused", refuse)
    assert (tmp_path / "session.mcap").read_text() == "third"
    assert (tmp_path / "previous/session.mcap").read_text() == "second"


def refuse():
    raise CaseError("a case", "none")


@pytest.mark.parametrize(
    ("settings", "remedy"),
    [(("clock=real",), "Install and activate one"), (("clock=virtual",), "Add --clock real")],
)
def test_a_headset_that_is_refused_costs_no_earlier_session_and_no_patient_is_made(
    tmp_path, monkeypatch, registry, settings, remedy
):
    monkeypatch.setattr("twinguide.xr.probe.runtime_manifest", lambda environment: None)
    with make_folder(tmp_path):
        (tmp_path / "session.mcap").write_text("yesterday")
    said = []
    with pytest.raises(HeadsetError, match=remedy):
        run_scenario(puncture(registry, "headset.backend=openxr", *settings), registry, tmp_path, say=said.append)
    assert said == []
    assert {file.name for file in tmp_path.iterdir()} == {".twinguide-session", "session.mcap"}


def test_a_head_that_is_found_missing_once_all_parts_run_costs_no_earlier_session(tmp_path, registry, demo_case):
    out, nothing = tmp_path / "session", tmp_path / "nothing"
    nothing.mkdir()
    with make_folder(out):
        (out / "session.mcap").write_text("yesterday")
    settings = (f"case={demo_case.folder}", f"headset.recorded={nothing}", "headset.backend=simulated")
    with pytest.raises(RecordingError, match=r"session\.mcap"):
        run_scenario(overridden(find("liver_rehearsal", registry), settings), registry, out, say=[].append)
    assert {file.name: file.read_text() for file in out.iterdir()} == {
        ".twinguide-session": "",
        "session.mcap": "yesterday",
    }


def test_a_folder_that_holds_what_the_run_needs_is_not_taken(tmp_path, monkeypatch, registry):
    out = tmp_path / "session"
    with make_folder(out):
        (out / "case").mkdir()
        (out / "calibration").mkdir()
        (out / "calibration/needle.toml").write_text("tip")
    monkeypatch.chdir(tmp_path)
    told = [{"file": str(out / "calibration/needle.toml")}, 3, "long" * 2000, "\0"]
    scenario = msgspec.structs.replace(
        puncture(registry, 'case="session/case"'), parts={"breathing": Placement(options={"x": told})}
    )
    found = list(named_files(scenario, registry))
    assert found == [Path("session/case"), out / "calibration/needle.toml"]
    for needed in (found, [out / "calibration/needle.toml"], [out]):
        with pytest.raises(ScenarioError, match=r"needs outside.*another folder with --out"):
            make_folder(out, needed)
        assert (out / "calibration/needle.toml").read_text() == "tip"
    make_folder(tmp_path / "other", found).close()


def test_every_key_that_names_a_file_is_looked_at(tmp_path, registry):
    files = [tmp_path / name for name in ("case", "head", "registration", "needle")]
    for file in files:
        file.touch()
    plain = puncture(registry)
    put = msgspec.structs.replace
    scenario = put(
        plain,
        case=str(files[0]),
        headset=put(plain.headset, recorded=str(files[1])),
        registration=put(plain.registration, calibration=str(files[2])),
        tools=plain.tools | {"needle": put(plain.tools["needle"], calibration=str(files[3]))},
    )
    assert list(named_files(scenario, registry)) == files


def test_a_folder_called_as_a_word_of_the_scenario_is_taken_again_and_again(tmp_path, monkeypatch, registry):
    monkeypatch.chdir(tmp_path)
    scenario = puncture(registry)
    for word in ("guide", "virtual", "simulated", "liver", "needle", "liver_puncture", scenario.title):
        for _ in range(2):
            make_folder(Path(word), named_files(scenario, registry)).close()


def test_a_folder_called_as_a_choice_or_a_usual_value_of_an_option_is_taken_again(tmp_path, monkeypatch, registry):
    monkeypatch.chdir(tmp_path)
    scenario = puncture(
        registry,
        "parts.softbody.options.reduced=auto",
        "parts.breathing.options.chest=chest",
        "parts.breathing.options.reference=vest",
        'parts.patient.options.faults=[{kind="cough", at_s=1.0}]',
    )
    for word in ("auto", "chest", "cough"):
        for _ in range(2):
            make_folder(Path(word), named_files(scenario, registry)).close()
    Path("vest").mkdir()  # any text may stand there: it may well name a folder
    assert list(named_files(scenario, registry)) == [Path("vest")]


def test_a_scenario_s_name_is_no_file_that_the_run_needs(tmp_path, monkeypatch, registry):
    monkeypatch.chdir(tmp_path)
    make_folder(Path("liver_puncture")).close()
    with pytest.raises(CaseError, match="typo"):
        run_scenario(
            puncture(registry, 'case="typo"'), registry, Path("liver_puncture"), say=print, file=Path("liver_puncture")
        )


@pytest.mark.parametrize(("case", "refusal"), [("typo", CaseError), ("generate:kidney", ScenarioError)])
def test_a_case_that_is_refused_costs_no_earlier_session(tmp_path, registry, case, refusal):
    with make_folder(tmp_path):
        (tmp_path / "session.mcap").write_text("yesterday")
    with pytest.raises(refusal):
        run_scenario(puncture(registry, f'case="{case}"'), registry, tmp_path, say=[].append)
    assert (tmp_path / "session.mcap").read_text() == "yesterday"


def test_a_case_that_does_not_fit_the_scenario_costs_no_earlier_session(tmp_path, registry, demo_case):
    case = tmp_path / "case"
    shutil.copytree(demo_case.folder, case)
    out = tmp_path / "session"
    with make_folder(out):
        (out / "session.mcap").write_text("yesterday")
    about = (case / "case.toml").read_text()
    (case / "case.toml").write_text(about.replace('"end-expiration"', '"end-inspiration"'))
    with pytest.raises(CaseError, match="end-inspiration"):
        run_scenario(puncture(registry, f"case={case}"), registry, out, say=[].append)
    assert {file.name for file in out.iterdir()} == {".twinguide-session", "session.mcap"}


def test_a_generated_patient_that_the_registration_is_not_of_costs_no_earlier_session(tmp_path, registry, demo_case):
    out = tmp_path / "session"
    with make_folder(out):
        (out / "session.mcap").write_text("yesterday")
    known = Registered(
        matrix=tuple(map(tuple, np.eye(4).tolist())), covariance=np.eye(6).tolist(), case_hash=demo_case.content_hash
    )
    plain = puncture(registry, "seed=2")  # the demo's patient is that of seed 1
    scenario = msgspec.structs.replace(plain, registration=msgspec.structs.replace(plain.registration, known=known))
    with pytest.raises(CaseError, match="a registration of this case"):
        run_scenario(scenario, registry, out, say=[].append)
    assert {file.name for file in out.iterdir()} == {".twinguide-session", "session.mcap"}


def test_a_generator_that_fails_is_named_with_its_reason_and_costs_no_earlier_session(tmp_path, registry):
    parts = registry.parts | {"liver": replace(registry.part("liver"), make="math:sqrt")}
    with make_folder(tmp_path):
        (tmp_path / "session.mcap").write_text("yesterday")
    with pytest.raises(PluginError, match=r"math:sqrt.*TypeError.*generator of liver"):
        run_scenario(puncture(registry), replace(registry, parts=parts), tmp_path, say=[].append)
    assert (tmp_path / "session.mcap").read_text() == "yesterday"


def test_what_the_run_says_is_printed_where_its_caller_prints(tmp_path, registry, capsys):
    parts = registry.parts | {"liver": replace(registry.part("liver"), make="math:sqrt")}
    with pytest.raises(PluginError):
        run_scenario(puncture(registry), replace(registry, parts=parts), tmp_path, say=print)
    assert capsys.readouterr().out == "making a patient from seed 1\n"


def test_a_session_that_cannot_be_set_aside_is_refused_with_the_reason_and_stays(tmp_path, monkeypatch):
    names = {".twinguide-session", "report.html", "session.mcap", "summary.json"}
    with make_folder(tmp_path):
        for name in names:
            (tmp_path / name).touch()
    rename = Path.rename

    def held(file, to):
        if file.name == "session.mcap":
            raise OSError(f"{file.name} is held")
        return rename(file, to)

    monkeypatch.setattr(Path, "rename", held)
    with pytest.raises(ScenarioError, match=r"set aside; got session\.mcap is held; in --out"), earlier_kept(tmp_path):
        pass
    assert {file.name for file in tmp_path.iterdir()} == names


def test_an_out_that_can_be_no_folder_is_refused(tmp_path):
    (tmp_path / "file").write_text("mine")
    for out in (tmp_path / "file", tmp_path / "file" / "below", Path("/proc/x/y")):
        with pytest.raises(ScenarioError, match=r"a folder that can be written.*--out. Name another folder"):
            make_folder(out)


def test_an_organ_that_cannot_be_generated_is_refused_with_those_that_can(registry):
    scenario = puncture(registry, 'case="generate:kidney"')
    with pytest.raises(ScenarioError, match=r"with a generator: liver; got 'generate:kidney'; in the scenario, case"):
        prepare_case(Run(scenario, registry, Path(), print))


def test_what_is_no_session_is_left_alone(tmp_path):
    (tmp_path / "thesis.docx").write_text("years")
    with pytest.raises(ScenarioError, match="Name another folder"):
        make_folder(tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == ["thesis.docx"]


@pytest.mark.parametrize(("setting", "rate"), [("seed=1", 60.0), ("parts.tracker.options.rate_hz=20.0", 20.0)])
def test_the_tracker_s_own_rate_is_what_its_silence_is_judged_by(registry, setting, rate):
    scenario = puncture(registry, setting)
    assert exposure_hz(Run(scenario, registry, Path(), print)) == rate
    without = msgspec.structs.replace(scenario, parts={"patient": scenario.parts["patient"]})
    assert exposure_hz(Run(without, registry, Path(), print)) == 60.0


@pytest.mark.parametrize(
    ("part", "options", "usual"),
    [("igtl", {}, 60.0), ("markers", {"source": "a", "calibration": "b", "tools": {"pointer": "c"}}, 30.0)],
)
def test_a_real_tracker_s_rate_can_be_told(registry, part, options, usual):
    def told(**more):
        parts = {part: Placement(options=options | more)}
        return exposure_hz(Run(msgspec.structs.replace(puncture(registry), parts=parts), registry, Path(), print))

    assert told() == usual
    assert told(rate_hz=20.0) == 20.0
    for wrong in (0.0, -20.0, float("inf")):
        with pytest.raises(ScenarioError, match=rf"parts\.{part}\.options\.rate_hz"):
            told(rate_hz=wrong)
