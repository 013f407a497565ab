"""Names of files, takes and columns: Unicode forms, transcripts, and the settings of columns."""

import json
import unicodedata

import numpy as np
import pytest
import soundfile

from a2fjax import rig
from a2fjax.animation import livelink
from a2fjax.errors import InputError
from data_pipeline import sources
from data_pipeline.settings import read_settings
from data_pipeline.sources import SourceOptions

NFC, NFD = (unicodedata.normalize(form, "Zo\u00e9") for form in ("NFC", "NFD"))
CSV = "time,jawOpen\n0,0.1\n0.02,0.2\n"


def sound(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, 0.1 * np.ones(16_000), 16_000)


def take_of(path, layout="auto"):
    (actor,) = (
        a for a in sources.open_source(path, layout, SourceOptions())[0].actors() if a.takes
    )
    assert not actor.rejected
    (take,) = actor.takes
    assert (actor.name, take.name) == (unicodedata.normalize("NFC", actor.name), take.name)
    return actor, take


@pytest.mark.parametrize(("motion", "voice"), [(NFC, NFD), (NFD, NFC), (NFD, NFD)])
@pytest.mark.parametrize("ending", ["wav", "WAV"])
def test_tables_find_their_audio_in_any_unicode_form(tmp_path, motion, voice, ending):
    sound(tmp_path / NFD / f"{voice} 1.wav")
    (tmp_path / NFD / f"{voice} 1.wav").rename(tmp_path / NFD / f"{voice} 1.{ending}")
    (tmp_path / NFD / f"{motion} 1.csv").write_text(CSV)
    shots = {"shots": {f"{voice} 1": {"sentence": NFD, "emotion": "sad"}}}
    (tmp_path / NFD / "shots.json").write_text(json.dumps(shots), encoding="utf-8")
    actor, take = take_of(tmp_path)
    assert (actor.name, take.name, take.sentence) == (NFC, f"{NFC} 1", NFC)
    assert take.audio is not None and take.emotion[3] == 1


@pytest.mark.parametrize(("motion", "voice"), [(NFC, NFD), (NFD, NFC)])
def test_other_layouts_do_so_too(tmp_path, motion, voice):
    phone = tmp_path / "phone"
    sound(phone / f"{voice}_1_iPhone.wav")
    table = livelink.from_motion(np.zeros((30, 72), np.float32), fps=60)
    livelink.write(phone / f"{motion}_1_iPhone.csv", table)
    assert take_of(phone)[1].audio is not None
    arrays = tmp_path / "arrays"
    sound(arrays / "audio" / voice / f"{voice}.wav")
    (arrays / motion).mkdir()
    np.save(arrays / motion / f"{motion}.npy", np.zeros((3, 500, 3), np.float32))
    actor, take = take_of(arrays, layout="vertices")
    assert actor.name == NFC and take.audio is not None
    studio = tmp_path / "studio" / motion
    sound(studio / "audio" / f"{voice}.wav")
    (studio / "cache" / "skin").mkdir(parents=True)
    np.save(studio / "cache" / "skin" / f"{motion}.npy", np.zeros((3, 9, 3), np.float32))
    (studio / "shots.json").write_text(json.dumps({"fps": 30, "shots": {voice: {"text": "a"}}}))
    actor, take = take_of(tmp_path / "studio")
    assert actor.name == NFC and (take.audio is not None, take.text) == (True, "a")
    source, _ = sources.open_source(tmp_path / "studio", "auto", SourceOptions())
    assert source.capture(take).skin.shape == (3, 9, 3)


def test_a_shot_twice_in_two_forms_and_a_doubled_key_are_refused(tmp_path):
    sound(tmp_path / "a.wav")
    (tmp_path / "a.csv").write_text(CSV)
    for text in (
        json.dumps({"shots": {NFC: {}, NFD: {}}}),
        '{"shots": {"a": {"emotion": {"sad": 1, "sad": 0.5}}}}',
    ):
        (tmp_path / "shots.json").write_text(text)
        (actor,) = sources.open_source(tmp_path, "table", SourceOptions())[0].actors()
        assert "twice" in actor.rejected[0][1]


def test_transcripts_are_no_curves(tmp_path):
    for stem in ("a", "b"):
        sound(tmp_path / f"{stem}.wav")
        (tmp_path / f"{stem}.txt").write_text("a - b | c - d: what is said\n")
    (tmp_path / "a.csv").write_text(CSV)
    (tmp_path / "b.txt").write_text("bs,jawOpen\nk,0," + "0," * 10 + "0.5\n")
    (actor,) = sources.open_source(tmp_path, "auto", SourceOptions())[0].actors()
    assert [t.data[0].name for t in actor.takes] == ["a.csv", "b.txt"] and not actor.rejected


@pytest.mark.parametrize(
    ("rename", "ignore"),
    [
        ('{"Kiefer": "jawOpen", "M\u00e4ulchen": "mouthPucker"}', '["odd one"]'),
        ("{Kiefer:jawOpen, Ma\u0308ulchen: mouthPucker}", "[odd one]"),
        ("Kiefer:jawOpen,M\u00e4ulchen:mouthPucker", "odd one,"),
    ],
)
def test_columns_are_set_on_the_command_line(tmp_path, rename, ignore):
    settings = read_settings(
        {"columns.rename": rename, "columns.ignore": ignore, "columns.units": "percent"}
    )
    assert settings.columns.ignore == ("odd one",)
    sound(tmp_path / "a.wav")
    (tmp_path / "a.csv").write_text("time,Kiefer,M\u00e4ulchen,odd one\n0,50,25,x\n", "utf-8")
    source, _ = sources.open_source(tmp_path, "table", settings.source_options())
    capture = source.capture(source.actors()[0].takes[0])
    channels = [rig.INDEX[c] for c in ("jawOpen", "mouthPucker")]
    np.testing.assert_allclose(capture.curves[0, channels], [0.5, 0.25])


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("columns.rename", "{Kiefer}", "expected {old:new"),
        ("columns.rename", "3", "names with values"),
        ("columns.units", "percents", "expected one of: auto, weight, percent"),
        ("columns.renames", "a", "did you mean 'rename'"),
        ("columns", "a", "columns='a': expected a group of keys"),
        ("column.rename", "a:b", "unknown key 'column'; did you mean 'columns'"),
    ],
)
def test_wrong_settings_of_columns(key, value, message):
    with pytest.raises(InputError, match=message):
        read_settings({key: value})
