"""The page that a batch opens on: each report with its state, its key figure and links.

It is searched as one types. One file, nothing from outside: its few lines of script are named by
their digest, and the page's policy lets no other run. Without scripts it is the same, unsearched.
"""

from __future__ import annotations

import base64
import hashlib
from collections import Counter
from collections.abc import Sequence
from html import escape

from abfed.lab.batch_run import Outcome
from abfed.lab.page import STYLE, page_style, pill

NAME = "index.html"
WORDS = {"made": ("made", "yes"), "kept": ("as it was", "open"), "failed": ("failed", "no")}

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
.abfed .none{display:flex;align-items:center;justify-content:center;color:#5b6875;font-size:.9em;
padding:1em;text-align:center}
.abfed .text{padding:.8em 1em 1em;display:flex;flex-direction:column;gap:.45em;flex:1}
.abfed .text h2{font-size:1em;margin:0;line-height:1.3}
.abfed .text .soft{margin:0;overflow-wrap:anywhere}
.abfed .links{margin-top:auto;display:flex;gap:.9em;align-items:center;flex-wrap:wrap}
.abfed .links a{color:#0072B2}
.abfed .links .pill{margin-right:auto}
"""
_SCRIPT = """
const box=document.getElementById('q'),cards=[...document.querySelectorAll('.cards li')],
said=document.getElementById('said'),chips=[...document.querySelectorAll('.chips button')];
let state='';
function show(){const words=box.value.toLowerCase().split(/\\s+/).filter(Boolean);let n=0;
for(const card of cards){const hit=(!state||card.dataset.state===state)&&
words.every(w=>card.dataset.words.includes(w));card.hidden=!hit;n+=hit}
said.textContent=n+' of '+cards.length+' reports'}
box.addEventListener('input',show);
for(const chip of chips)chip.addEventListener('click',()=>{
state=state===chip.value?'':chip.value;
for(const other of chips)other.setAttribute('aria-pressed',String(other.value===state));show()});
document.querySelector('.tools').hidden=false;
"""


def index_page(name: str, outcomes: Sequence[Outcome]) -> str:
    """The page as markup."""
    counted: Counter[str] = Counter(one.status for one in outcomes)
    said = ", ".join(f"{counted[state]} {WORDS[state][0]}" for state in WORDS if counted[state])
    script = f"sha256-{base64.b64encode(hashlib.sha256(_SCRIPT.encode()).digest()).decode()}"
    policy = f"default-src 'none'; style-src 'unsafe-inline'; img-src data:; script-src '{script}'"
    chips = "".join(
        f'<button type="button" value="{state}" aria-pressed="false">{words} '
        f"({counted[state]})</button>"
        for state, (words, _) in WORDS.items()
        if counted[state]
    )
    cards = "\n".join(_card(one) for one in outcomes)
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(name)}: {len(outcomes)} reports</title>\n"
        f"<style>{STYLE}{page_style()}{_STYLE}</style>\n</head>\n"
        f'<body>\n<main class="abfed wide">\n<div class="kicker">Batch of reports</div>'
        f'<h1>{escape(name)}</h1><p class="soft">{len(outcomes)} reports: {escape(said)}</p>\n'
        '<div class="tools" hidden><input id="q" type="search" placeholder="Search" '
        f'aria-label="Search reports"><div class="chips">{chips}</div>'
        f'<span id="said" class="soft" role="status">{len(outcomes)} of {len(outcomes)} reports'
        f'</span></div>\n<ul class="cards">\n{cards}\n</ul>\n</main>\n'
        f"<script>{_SCRIPT}</script>\n</body>\n</html>\n"
    )


def _card(one: Outcome) -> str:
    """One report."""
    asked = one.item.order
    title = escape(asked.subject.title)
    labels = [(key, value) for key, value in one.item.labels.items() if key != "about"]
    said = " · ".join(
        escape(str(value) if key == "notebook" else f"{key} = {value}") for key, value in labels
    )
    words, kind = WORDS[one.status]
    main = f"{asked.name}.{asked.formats[0]}"
    links = "".join(
        f'<a href="{escape(asked.name, quote=True)}.{form}">{form}</a>' for form in asked.formats
    )
    reason = ""
    if one.status == "failed":
        main = one.partial
        reason = f'<p class="soft">{escape(one.reason)}</p>'
        partial = escape(one.partial, quote=True)
        links = f'<a href="{partial}">how far it came</a>' if one.partial else ""
    thumb = (
        f'<img loading="lazy" alt="Key figure of {title}, {said}" src="{one.thumbnail}">'
        if one.thumbnail
        else '<span class="none">no figure</span>'
    )
    inner = (
        f'<a class="thumb" href="{escape(main, quote=True)}" tabindex="-1" aria-hidden="true">'
        f"{thumb}</a>"
        if main
        else f'<div class="thumb">{thumb}</div>'
    )
    found = " ".join([asked.subject.title, *map(str, one.item.labels.values()), words, one.reason])
    return (
        f'<li data-state="{one.status}" data-words="{escape(found.lower(), quote=True)}">{inner}'
        f'<div class="text"><h2>{title}</h2>'
        f'<p class="soft">{escape(str(one.item.labels["about"]))}<br>{said}</p>{reason}'
        f'<div class="links">{pill(words, kind)}{links}</div></div></li>'
    )
