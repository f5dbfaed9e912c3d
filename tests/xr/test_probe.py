import json

from twinguide.xr.probe import probe, runtime_manifest


def test_the_running_runtime_is_named_with_its_extensions(monado, run_client):
    told = run_client("probed", monado).result()
    assert told["available"]
    assert "Monado" in told["text"]
    assert "XR_MNDX_egl_enable" in told["extensions"]


def test_a_runtime_whose_service_is_off_is_told_with_the_remedy(monado_own, run_client):
    told = run_client("probed", monado_own).result()
    assert not told["available"]
    assert "is its service running?" in told["text"]
    assert "monado-service" in told["remedy"]


def test_a_hanging_runtime_is_given_up(monado_own, run_client):
    import signal

    monado_own.start()
    monado_own.send(signal.SIGSTOP)
    told = run_client("probed", monado_own).result()
    assert not told["available"]
    assert "did not answer" in told["text"]


def test_a_missing_manifest_is_told(monkeypatch, tmp_path):
    monkeypatch.setenv("XR_RUNTIME_JSON", str(tmp_path / "none.json"))
    found = probe()
    assert not found.available
    assert "missing" in found.reason
    assert str(tmp_path) in found.text


def test_a_library_that_is_no_runtime_is_told_and_does_no_harm(monkeypatch, tmp_path):
    manifest = tmp_path / "runtime.json"
    library = tmp_path / "libnothing.so"
    library.write_bytes(b"not a library")
    manifest.write_text(json.dumps({"file_format_version": "1.0.0", "runtime": {"library_path": str(library)}}))
    monkeypatch.setenv("XR_RUNTIME_JSON", str(manifest))
    found = probe()
    assert not found.available
    assert found.reason
    assert found.remedy


def test_the_active_runtime_is_looked_for_where_the_loader_looks(tmp_path):
    environment = {"HOME": str(tmp_path), "XDG_CONFIG_DIRS": str(tmp_path / "system")}
    system, home = (tmp_path / place / "openxr/1/active_runtime.json" for place in ("system", ".config"))
    for file in (system, home):
        file.parent.mkdir(parents=True)
        file.write_text("{}")
        assert runtime_manifest(environment) == file
    assert str(runtime_manifest({**environment, "XR_RUNTIME_JSON": "/a.json"})) == "/a.json"
