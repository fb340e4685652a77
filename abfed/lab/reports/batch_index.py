"""The page that a batch opens on: each report with its state, its key figure and links.

1. It is searched as one types. One file, nothing from outside: its few lines of script are named
   by their digest, and the page's policy lets no other run. Without scripts it is the same,
   unsearched.
2. It follows from its facts and from the pages it stands beside: key figures are theirs.
3. It is signed as a report is: its manifest holds those facts, the digest of each report's own
   manifest, and whom the page is for, who is whoever may see each report on it.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from abfed.lab.paper.page import STYLE, page_style, pill, scoped
from abfed.lab.reports.manifest import (
    FORMAT,
    SUFFIX,
    code_digest,
    content_key,
    damaged,
    read_manifest,
    versions,
)
from abfed.protocol.canonical import canonical_bytes, sha256_hex
from abfed.protocol.errors import IntegrityError, WorkspaceError
from abfed.site.files import read_private, write_private

if TYPE_CHECKING:
    from abfed.lab.reports.batch_run import Outcome
    from abfed.site.keys import SiteKeys

STEM = "index"
NAME = f"{STEM}.html"
WORDS = {"made": ("made", "yes"), "kept": ("as it was", "open"), "failed": ("failed", "no")}

_IMAGE = re.compile(rb'<img\b[^>]*\bsrc="(data:image/[^"]+)"')
_STYLE = """
.abfed .tools{display:flex;flex-wrap:wrap;gap:.6em 1em;align-items:center;margin:1.1em 0 1.3em}
.abfed input[type=search]{font:inherit;padding:.45em .7em;border:1px solid #8794a0;
border-radius:6px;flex:1 1 16em;min-width:0;box-sizing:border-box}
.abfed .chips{display:flex;gap:.4em;flex-wrap:wrap}
.abfed .chips button{font:inherit;font-size:.9em;padding:.3em .8em;border:1px solid #8794a0;
border-radius:1.2em;background:#fff;color:#1b2733;cursor:pointer}
.abfed .chips button[aria-pressed=true]{background:#0072B2;border-color:#0072B2;color:#fff}
.abfed .cards{display:grid;gap:1.1em;
grid-template-columns:repeat(auto-fill,minmax(min(100%,19em),1fr));
list-style:none;padding:0;margin:0}
.abfed .cards li{border:1px solid #dfe4e9;border-radius:8px;overflow:hidden;display:flex;
flex-direction:column;background:#fff}
.abfed .cards li[hidden]{display:none}
.abfed .thumb{display:block;height:10.5em;background:#f7f9fa;border-bottom:1px solid #dfe4e9;
overflow:hidden}
.abfed .thumb img{width:100%;height:100%;object-fit:contain;object-position:center;display:block;
padding:.5em;box-sizing:border-box}
.abfed .thumb{text-decoration:none}
.abfed .none{height:100%;box-sizing:border-box;display:flex;align-items:center;
justify-content:center;color:#5b6875;font-size:.9em;
padding:1em;text-align:center}
.abfed .text{padding:.8em 1em 1em;display:flex;flex-direction:column;gap:.45em;flex:1}
.abfed .text h2{font-size:1em;margin:0;line-height:1.3}
.abfed .text .soft{margin:0;overflow-wrap:anywhere}
.abfed .links{margin-top:auto;display:flex;gap:.9em;align-items:center;flex-wrap:wrap}
.abfed .links a{color:#0072B2}
.abfed .links .pill{margin-right:auto}
.abfed footer{margin-top:2em}
"""
_SCRIPT = """
const box=document.getElementById('q'),cards=[...document.querySelectorAll('.cards li')],
said=document.getElementById('said'),chips=[...document.querySelectorAll('.chips button')];
let state='';
function show(){const words=box.value.toLowerCase().split(/[\\s=]+/).filter(Boolean);let n=0;
for(const card of cards){const hit=(!state||card.dataset.state===state)&&
words.every(w=>card.dataset.words.includes(w));card.hidden=!hit;n+=hit}
said.textContent=n+' of '+cards.length+' reports'}
box.addEventListener('input',show);
for(const chip of chips)chip.addEventListener('click',()=>{
state=state===chip.value?'':chip.value;
for(const other of chips)other.setAttribute('aria-pressed',String(other.value===state));show()});
document.querySelector('.tools').hidden=false;
"""


def write_index(
    name: str,
    outcomes: Sequence[Outcome],
    folder: Path,
    signer: SiteKeys,
    *,
    left_out: Sequence[str] = (),
) -> Path:
    """Write the page, then its signed manifest; returns the page.

    Args:
        name: of the batch.
        outcomes: of its reports.
        folder: where they lie.
        signer: signs the manifest.
        left_out: points of the grid at which there was nothing to show.
    """
    facts = facts_of(name, outcomes, folder) | {"left_out": list(left_out)}
    audience = _audience(outcomes)
    content = index_page(facts, audience, folder).encode()
    write_private(folder / NAME, content)
    manifest = {
        "format": FORMAT,
        "report": STEM,
        "key": content_key(b"", {}, facts),
        "notebook": {"name": "", "digest": ""},
        "parameters": {},
        "subject": facts,
        "seed": 0,
        "versions": versions(),
        "code": code_digest(),
        "audience": audience,
        "confinement": "",
        "files": {NAME: sha256_hex(content)},
    }
    signed = signer.sign("report", canonical_bytes(manifest))
    write_private(folder / f"{STEM}{SUFFIX}", signed)
    return folder / NAME


def facts_of(name: str, outcomes: Sequence[Outcome], folder: Path) -> dict[str, Any]:
    """All that the page says, but for key figures."""
    subjects = [one.item.order.subject.facts for one in outcomes]
    runs = {facts["run"] for facts in subjects if "run" in facts}
    runs |= {run for facts in subjects for run in facts.get("runs", ())}
    return {
        "kind": "batch",
        "batch": name,
        "runs": sorted(runs),
        "simulated": any(facts["simulated"] for facts in subjects),
        "reports": [_facts(one, folder) for one in outcomes],
    }


def _facts(one: Outcome, folder: Path) -> dict[str, Any]:
    asked = one.item.order
    manifest = "" if one.status == "failed" else _digest(folder / f"{asked.name}{SUFFIX}")
    return {
        "report": asked.name,
        "manifest": manifest,
        "title": asked.subject.title,
        "labels": [[label, str(value)] for label, value in one.item.labels.items()],
        "formats": list(asked.formats),
        "status": one.status,
        "reason": one.reason,
        "partial": one.partial,
    }


def _digest(file: Path) -> str:
    return sha256_hex(read_private(file))


def _audience(outcomes: Sequence[Outcome]) -> list[str]:
    """Roles that each report of the batch is for."""
    each = [set(one.item.order.subject.audience) for one in outcomes]
    return sorted(set.intersection(*each)) if each else []


def damage(manifest: Mapping[str, Any], folder: Path, public_key: bytes) -> list[str]:
    """Files that aren't as they were when the index was made: its page, reports and manifests."""
    found = damaged(manifest, folder)
    for one in manifest["subject"]["reports"]:
        if one["status"] == "failed":
            continue
        file = folder / f"{one['report']}{SUFFIX}"
        try:
            report = read_manifest(file, public_key)
        except (WorkspaceError, IntegrityError):
            found.append(file.name)
            continue
        if _digest(file) != one["manifest"]:
            found.append(file.name)
        found += damaged(report, folder)
    return found


def key_figure(page: Path) -> str:
    """The first picture of a page, as a data URI; empty where it has none, or isn't there."""
    found = _IMAGE.search(page.read_bytes()) if page.is_file() else None
    return found[1].decode(errors="replace") if found else ""


def index_page(facts: Mapping[str, Any], audience: Sequence[str], folder: Path) -> str:
    """The page as markup.

    Args:
        facts: as `facts_of` gives them.
        audience: roles that it is for.
        folder: where the reports lie.
    """
    name, reports = facts["batch"], facts["reports"]
    counted: Counter[str] = Counter(one["status"] for one in reports)
    said = ", ".join(
        f"{counted[state]} {_many(state, counted[state])}" for state in WORDS if counted[state]
    )
    script = f"sha256-{base64.b64encode(hashlib.sha256(_SCRIPT.encode()).digest()).decode()}"
    policy = f"default-src 'none'; style-src 'unsafe-inline'; img-src data:; script-src '{script}'"
    chips = "".join(
        f'<button type="button" value="{state}" aria-pressed="false">{words} '
        f"({counted[state]})</button>"
        for state, (words, _) in WORDS.items()
        if counted[state]
    )
    cards = "\n".join(_card(one, folder) for one in reports)
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(name)}: {len(reports)} reports</title>\n"
        f"<style>{STYLE}{page_style()}{scoped(_STYLE)}</style>\n</head>\n"
        f'<body>\n<main class="abfed wide">\n<div class="kicker">Batch of reports</div>'
        f'<h1>{escape(name)}</h1><p class="soft">{len(reports)} reports: {escape(said)}</p>\n'
        '<div class="tools" hidden><input id="q" type="search" placeholder="Search" '
        f'aria-label="Search reports"><div class="chips">{chips}</div>'
        f'<span id="said" class="soft" role="status">{len(reports)} of {len(reports)} reports'
        f'</span></div>\n<ul class="cards">\n{cards}\n</ul>\n{_left_out(facts)}'
        f"{_footer(name, audience)}</main>\n"
        f"<script>{_SCRIPT}</script>\n</body>\n</html>\n"
    )


def _many(state: str, reports: int) -> str:
    """A state in words, of one report or of several."""
    words = WORDS[state][0]
    return words if reports == 1 else words.replace("it was", "they were")


def _left_out(facts: Mapping[str, Any]) -> str:
    """Points of the grid that are no report, folded away."""
    points = facts.get("left_out", ())  # an index of an earlier version has none
    if not points:
        return ""
    listed = "".join(f"<li>{escape(one)}</li>" for one in points)
    some = "1 point" if len(points) == 1 else f"{len(points)} points"
    return (
        f"<details><summary>{some} of the grid left out: nothing to show</summary>"
        f"<ul>{listed}</ul></details>\n"
    )


def _footer(name: str, audience: Sequence[str]) -> str:
    """For whom the page is, and how it is checked."""
    readers = ", ".join(role.replace("-", " ") for role in audience) or "nobody"
    return (
        f'<footer class="soft"><p>For these roles: {escape(readers)}. '
        f"<code>abfed report verify {escape(name)}</code> checks this page and each report on it."
        "</p></footer>\n"
    )


def _card(one: Mapping[str, Any], folder: Path) -> str:
    """One report."""
    report, title, labels = escape(one["report"], quote=True), escape(one["title"]), one["labels"]
    about = dict(labels)["about"]
    says = [
        value if label == "notebook" else f"{label} = {value}"
        for label, value in labels
        if label != "about"
    ]
    said = " · ".join(map(escape, says))
    words, kind = WORDS[one["status"]]
    main = f"{report}.{one['formats'][0]}"
    links = "".join(f'<a href="{report}.{form}">{form}</a>' for form in one["formats"])
    reason = figure = ""
    if one["status"] == "failed":
        main = escape(one["partial"], quote=True)
        reason = f'<p class="soft">{escape(one["reason"])}</p>'
        links = f'<a href="{main}">how far it came</a>' if main else ""
    elif "html" in one["formats"]:
        figure = key_figure(folder / f"{one['report']}.html")
    thumb = (
        f'<img loading="lazy" alt="Key figure of {title}, {said}" src="{figure}">'
        if figure
        else '<span class="none">no figure</span>'
    )
    inner = (
        f'<a class="thumb" href="{main}" tabindex="-1" aria-hidden="true">{thumb}</a>'
        if main
        else f'<div class="thumb">{thumb}</div>'
    )
    found = " ".join([one["title"], about, *says, words, one["reason"]]).lower()
    return (
        f'<li data-state="{one["status"]}" data-words="{escape(found, quote=True)}">{inner}'
        f'<div class="text"><h2>{title}</h2>'
        f'<p class="soft">{escape(about)}<br>{said}</p>{reason}'
        f'<div class="links">{pill(words, kind)}{links}</div></div></li>'
    )
