"""Writes a take as an image, or as a page that plays the audio with a cursor on the figure."""

from __future__ import annotations

import base64
import html
import io
from pathlib import Path

from a2fjax import files, rig
from a2fjax.audio import SAMPLE_RATE
from a2fjax.view import drawing
from a2fjax.view.take import Take, summary_lines
from a2fjax.view.take_figure import Picture, picture

_WIDEST_PICTURE, _WIDEST_PAGE = 20.0, 90.0
"""Maximum width in inches. Pages scroll; browsers and libpng fail beyond 65,000 pixels."""

FORMATS = (*drawing.FORMATS, ".html")

_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{title}</title>
<style>
 body {{ font: 14px system-ui, sans-serif; color: #333; margin: 16px; }}
 audio {{ width: 100%; max-width: 900px; }}
 #view {{ position: relative; overflow-x: auto; }}
 #sheet {{ position: relative; width: max-content; cursor: crosshair; }}
 #line {{ position: absolute; top: 0; bottom: 0; width: 1px; background: #d00; left: {left}%; }}
 img {{ display: block; max-width: {width}; }}
 pre {{ font-size: 12px; }}
</style></head><body>
<audio id="sound" controls src="data:audio/{kind};base64,{audio}"></audio>
<div id="view"><div id="sheet"><img alt="{title}" src="data:image/png;base64,{image}">
<div id="line"></div></div></div>
<pre>{text}</pre>
<script>
 const sound = document.getElementById("sound"), line = document.getElementById("line");
 const sheet = document.getElementById("sheet");
 const left = {left}, right = {right}, seconds = {seconds};
 function draw() {{
  line.style.left = left + (right - left) * sound.currentTime / seconds + "%";
  if (!sound.paused) requestAnimationFrame(draw);
 }}
 sound.addEventListener("play", draw);
 sound.addEventListener("seeked", draw);
 sheet.addEventListener("click", event => {{
  const box = sheet.getBoundingClientRect();
  const at = 100 * (event.clientX - box.left) / box.width;
  sound.currentTime = Math.min(Math.max((at - left) / (right - left), 0), 1) * seconds;
 }});
</script></body></html>
"""


def write(path: str | Path, take: Take, *, start: float = 0.0) -> None:
    """Writes a take as .png, .pdf, .svg or .html; an .html page holds the figure and the audio.

    Args:
      path: output file.
      take: take to draw.
      start: start of the drawn part in seconds.

    Raises:
      InputError: unknown ending, unwritable file, or matplotlib is not installed.
    """
    ending = drawing.check_format(path, FORMATS)
    page = ending == ".html"
    drawn = picture(
        take,
        start=start,
        format="png" if page else ending[1:],
        widest=_WIDEST_PAGE if page else _WIDEST_PICTURE,
    )
    if page:
        files.write_text(Path(path), _page(take, drawn))
        return
    with files.atomic_write(Path(path)) as temporary:
        Path(temporary).write_bytes(drawn.data)


def _page(take: Take, drawn: Picture) -> str:
    import soundfile

    sound = io.BytesIO()
    soundfile.write(sound, take.audio, SAMPLE_RATE, format="FLAC", subtype="PCM_16")
    return _PAGE.format(
        title=html.escape(take.name),
        kind="flac",
        audio=base64.b64encode(sound.getvalue()).decode(),
        image=base64.b64encode(drawn.data).decode(),
        text=html.escape("\n".join(summary_lines(take))),
        left=f"{100 * drawn.left:.4f}",
        right=f"{100 * drawn.right:.4f}",
        seconds=f"{len(take.motion) / rig.FPS:.4f}",
        width="none" if take.seconds > 40 else "calc(100vw - 40px)",
    )
