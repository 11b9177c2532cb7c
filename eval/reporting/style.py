"""The style sheet of the report: one file, no fonts or images fetched; light, dark, narrow and on paper.

Blue and orange differ for every common kind of colour blindness, rings and bars for all other eyes and printers. Text
has a contrast of at least 4.5 to 1 on its ground, in light and in dark.
"""

PALETTE = """
:root {
  --paper: #fdfdfc; --ink: #1c1d1f; --faint: #5a5e64; --rule: #d9dadd; --panel: #f1f3f5;
  --ca: #0b67a6; --asr: #b8420a; --link: #0b5c94;
  --c0: #0b6fb0; --c1: #c4470a; --c2: #00845c; --c3: #a6478a; --c4: #8a6d00; --c5: #4b5563;
}
@media (prefers-color-scheme: dark) {
  :root {
    --paper: #17181a; --ink: #e6e7e9; --faint: #a8acb2; --rule: #3a3d42; --panel: #23262a;
    --ca: #6dbcf0; --asr: #f58a52; --link: #7cc0f2;
    --c0: #5db4ee; --c1: #f58a52; --c2: #3fc495; --c3: #dd8cc6; --c4: #d6b545; --c5: #a2a6ac;
  }
}
"""

PAGE = """
* { box-sizing: border-box; }
html { color-scheme: light dark; -webkit-text-size-adjust: 100%; }
body {
  margin: 0; background: var(--paper); color: var(--ink); overflow-wrap: break-word;
  font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif;
}
main { margin: 0 auto; padding: 1.4rem 1.25rem 4rem; max-width: 70rem; }
h1, h2.verdict { font-size: 1.6rem; line-height: 1.25; margin: 0 0 1.1rem; letter-spacing: -0.012em; font-weight: 650; }
h2 { font-size: 1.25rem; margin: 2.6rem 0 0.6rem; padding-top: 0.9rem; border-top: 1px solid var(--rule); }
h2.verdict { font-size: 1.35rem; border: 0; padding: 0; }
h3 { font-size: 1rem; margin: 1.6rem 0 0.4rem; }
p { margin: 0.5rem 0; max-width: 52rem; }
a { color: var(--link); }
code { font: 0.88em ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; overflow-wrap: anywhere; }
b, strong { font-weight: 650; }
.faint, figcaption, .axis, .about { color: var(--faint); font-size: 0.875rem; }
.about { margin: 0 0 0.3rem; }
.unseen { position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%); white-space: nowrap; }
header + section { margin-top: 2rem; }
section + section { margin-top: 3rem; border-top: 2px solid var(--ink); padding-top: 1.4rem; }
header + section { border-top: 2px solid var(--ink); padding-top: 1.4rem; }
.glance { list-style: none; margin: 0; padding: 0; }
.glance li { padding: 0.5rem 0; border-bottom: 1px solid var(--rule); }
.glance a { font-weight: 650; margin-right: 0.3rem; }
.lede { display: grid; grid-template-columns: 23rem minmax(0, 1fr); gap: 0 2.2rem; align-items: start; }
.lede.plain { grid-template-columns: minmax(0, 1fr); max-width: 52rem; }
figure { margin: 0; min-width: 0; }
figure img { width: 100%; height: auto; display: block; border: 1px solid var(--rule); }
img.pixels { image-rendering: pixelated; }
figcaption { margin-top: 0.25rem; line-height: 1.35; }
figcaption b { color: var(--ink); }
.hero { display: grid; grid-template-columns: 1fr 1fr; gap: 0.8rem; }
.story {
  display: grid; grid-template-columns: repeat(auto-fit, minmax(15rem, 1fr)); gap: 0.4rem 2rem;
  margin: 1rem 0 0;
}
.story dt { font-weight: 650; font-size: 0.95rem; }
.story dd { margin: 0.1rem 0 0; font-size: 0.95rem; line-height: 1.42; }
.notes, .caveats { font-size: 0.84rem; max-width: none; margin: 0.7rem 0 0; }
.notes { color: var(--faint); margin-top: 0.3rem; }
.notes b { color: var(--ink); }
.asr-ink { color: var(--asr); } .ca-ink { color: var(--ca); }
table { border-collapse: collapse; width: 100%; font-size: 0.92rem; margin: 0.5rem 0; }
th, td {
  padding: 0.42rem 0.6rem 0.42rem 0; text-align: left; vertical-align: top; border-bottom: 1px solid var(--rule);
}
thead th { font-weight: 650; border-bottom: 1.5px solid var(--faint); vertical-align: bottom; font-size: 0.875rem; }
tbody th { font-weight: 650; }
td.n, th.n { text-align: right; padding-right: 0; padding-left: 0.6rem; font-variant-numeric: tabular-nums; }
td.n small { white-space: nowrap; }
td small, th small { display: block; color: var(--faint); font-size: 0.78rem; line-height: 1.3; font-weight: 400; }
tr.best > * { background: var(--panel); }
tr.seed th { padding-left: 1.2rem; font-weight: 400; } tr.seed b { font-weight: 400; }
.badge {
  font-style: normal; font-size: 0.75rem; font-weight: 650; color: var(--paper); background: var(--ink);
  border-radius: 3px; padding: 0.05rem 0.35rem; margin-left: 0.25rem;
}
table.chart { margin: 0; }
table.chart td.n b { font-size: 1.05rem; }
table.chart th.plot { width: 38%; padding: 0 0 0.25rem 1.4rem; }
table.chart td.plot { padding: 0.2rem 0 0.2rem 1.4rem; }
table.chart thead th:first-child { width: 35%; }
tr.best > :first-child { box-shadow: -0.4rem 0 var(--panel); }
.keys { display: flex; flex-wrap: wrap; gap: 0.1rem 1.4rem; font-size: 0.84rem; margin: 0 0 0.3rem; max-width: none; }
.key { display: inline-block; width: 0.75rem; height: 0.75rem; margin-right: 0.4rem; vertical-align: -1px; }
.key.ca { border: 2.5px solid var(--ca); border-radius: 50%; }
.key.asr { background: var(--asr); width: 1.1rem; height: 0.55rem; vertical-align: 1px; }
.floor-key {
  width: 0; height: 0.9rem; border-left: 1.5px dashed var(--ink); margin-right: 0.5rem; vertical-align: -3px;
}
svg { display: block; overflow: visible; }
svg.strip { width: 100%; height: 2.4rem; }
svg.scale { width: 100%; }
svg.scale text { font-size: 12px; fill: var(--faint); font-weight: 400; }
svg.chart { width: 100%; height: auto; margin: 0.2rem 0; }
svg.chart text { font-size: 15px; fill: var(--faint); }
svg.swatch { display: inline-block; vertical-align: middle; margin-right: 0.35rem; }
.grid { stroke: var(--rule); stroke-width: 1; }
.floor { stroke: var(--ink); stroke-width: 1.2; stroke-dasharray: 3 3; }
circle.ca { fill: var(--paper); stroke: var(--ca); stroke-width: 2.5; } rect.asr { fill: var(--asr); }
.whisker.ca { stroke: var(--ca); stroke-width: 2; } .whisker.asr { stroke: var(--ink); stroke-width: 1.5; }
.curve { fill: none; stroke-width: 1.8; stroke-linejoin: round; }
svg.chart line, svg.chart polyline { vector-effect: non-scaling-stroke; }
.c0 { stroke: var(--c0); } .c1 { stroke: var(--c1); } .c2 { stroke: var(--c2); }
.c3 { stroke: var(--c3); } .c4 { stroke: var(--c4); } .c5 { stroke: var(--c5); }
.legend {
  list-style: none; display: flex; flex-wrap: wrap; gap: 0.1rem 1.4rem; padding: 0; margin: 0.3rem 0;
  font-size: 0.875rem;
}
.training { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 26rem), 1fr)); gap: 0.5rem 2.5rem; }
.curves h3 { margin-top: 0.6rem; }
.triples {
  display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 26rem), 1fr)); gap: 1.2rem 2.5rem;
  margin: 0.8rem 0;
}
.triple { display: grid; grid-template-columns: repeat(3, minmax(0, 1fr)); gap: 0.6rem; }
dl.facts.knobs { grid-column: span 2; grid-template-columns: auto minmax(0, 1fr); align-content: start; margin: 0; }
.sheet { max-width: 100%; height: auto; border: 1px solid var(--rule); }
dl.facts {
  display: grid; grid-template-columns: minmax(7rem, 12rem) minmax(0, 1fr); gap: 0.2rem 1rem; margin: 0.4rem 0 1.2rem;
  font-size: 0.9rem;
}
dl.facts dt { color: var(--faint); }
dl.facts dd { margin: 0; overflow-wrap: anywhere; max-width: 52rem; }
.provenance { font-size: 0.92rem; }
@media (max-width: 60rem) {
  .lede { grid-template-columns: minmax(0, 1fr); }
  .hero { max-width: 30rem; margin-bottom: 1.2rem; }
}
@media (max-width: 36rem) {
  body { font-size: 15px; }
  main { padding: 1rem 0.9rem 3rem; }
  h1, h2.verdict { font-size: 1.25rem; margin-bottom: 0.8rem; }
  .story { grid-template-columns: minmax(0, 1fr); }
  table, tbody { display: block; }
  thead { display: none; }
  tr {
    display: grid; grid-template-columns: 1fr 1fr; gap: 0 0.8rem; padding: 0.5rem 0;
    border-bottom: 1px solid var(--rule);
  }
  th, td { border-bottom: 0; padding: 0.1rem 0; }
  tbody th, table.chart td.plot { grid-column: 1 / -1; padding-left: 0; }
  td.n { text-align: left; padding-left: 0; }
  td.n::before { content: attr(data-label); display: block; color: var(--faint); font-size: 0.78rem; }
  tr.best > :first-child { box-shadow: none; }
  tr.best { background: var(--panel); margin: 0 -0.4rem; padding-left: 0.4rem; padding-right: 0.4rem; }
  table.numbers tr { grid-template-columns: repeat(3, 1fr); }
  svg.strip { height: 2.6rem; }
  svg.chart text { font-size: 24px; }
  dl.facts:not(.knobs) { grid-template-columns: minmax(0, 1fr); gap: 0; }
  dl.facts:not(.knobs) dd { margin-bottom: 0.5rem; }
}
@page { margin: 14mm 13mm; }
@media print {
  :root { --paper: #fff; --ink: #000; --faint: #444; --rule: #bbb; --panel: #eef0f2; --ca: #0b67a6; --asr: #b8420a;
    --link: #000;
    --c0: #0b6fb0; --c1: #c4470a; --c2: #00845c; --c3: #a6478a; --c4: #8a6d00; --c5: #4b5563; }
  html { color-scheme: light; font-size: 12px; }
  body { font-size: 1rem; }
  main { max-width: none; padding: 0; }
  h1, h2, h3, h2 + p, .about, .axis, .keys { break-after: avoid; }
  .lede { grid-template-columns: 9.5rem minmax(0, 1fr); gap: 0 1.8rem; }
  .hero { max-width: none; margin: 0; grid-template-columns: 1fr; }
  .story { grid-template-columns: repeat(3, minmax(0, 1fr)); gap: 0 1.2rem; }
  .triples, .training { grid-template-columns: 1fr 1fr; gap: 0.8rem 1.4rem; }
  .sheet { max-height: 22cm; width: auto; break-inside: avoid; }
  tr, figure, svg, .lede, .triple, .curves, .story > div, .provenance dl.facts { break-inside: avoid; }
  .provenance dl.facts { font-size: 0.8rem; margin-bottom: 0.5rem; }
  svg.scale text { font-size: 9px; }
  * { print-color-adjust: exact; -webkit-print-color-adjust: exact; }
}
"""
CSS = (PALETTE.rstrip() + PAGE).strip()
