"""The style sheet of the report: one file, no fonts or pictures fetched; light, dark, narrow and on paper."""

CSS = """
:root {
  --paper: #fdfdfc; --ink: #1c1d1f; --faint: #5f6368; --rule: #d9dadd; --panel: #f2f3f4;
  --ca: #0b6fb0; --asr: #c4470a;
  --c0: #0b6fb0; --c1: #c4470a; --c2: #00845c; --c3: #a6478a; --c4: #8a6d00; --c5: #4b5563;
}
@media (prefers-color-scheme: dark) {
  :root {
    --paper: #17181a; --ink: #e6e7e9; --faint: #a2a6ac; --rule: #3a3d42; --panel: #212327;
    --ca: #5db4ee; --asr: #f58a52;
    --c0: #5db4ee; --c1: #f58a52; --c2: #3fc495; --c3: #dd8cc6; --c4: #d6b545; --c5: #a2a6ac;
  }
}
* { box-sizing: border-box; }
html { color-scheme: light dark; -webkit-text-size-adjust: 100%; }
body {
  margin: 0 auto; padding: 2rem 1.25rem 4rem; max-width: 58rem; background: var(--paper); color: var(--ink);
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif;
}
h1 { font-size: 1.75rem; line-height: 1.2; margin: 0 0 1.2rem; letter-spacing: -0.01em; }
h2 { font-size: 1.2rem; margin: 2.8rem 0 0.6rem; padding-top: 0.7rem; border-top: 1px solid var(--rule); }
h3 { font-size: 1rem; margin: 1.6rem 0 0.4rem; }
p { margin: 0.5rem 0; max-width: 46rem; }
code { font: 0.88em ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; overflow-wrap: anywhere; }
b, strong { font-weight: 650; }
.faint, figcaption, .axis { color: var(--faint); font-size: 0.875rem; }
.lede { display: grid; grid-template-columns: minmax(0, 1fr) auto; gap: 1rem 2.5rem; align-items: start; }
.lede dl { margin: 0; }
.lede dt { font-weight: 650; margin-top: 0.9rem; }
.lede dt:first-child { margin-top: 0; }
.lede dd { margin: 0.1rem 0 0; max-width: 40rem; }
figure { margin: 0; }
figure img { width: 100%; height: auto; display: block; image-rendering: pixelated; border: 1px solid var(--rule); }
figcaption { margin-top: 0.2rem; line-height: 1.3; }
.hero { display: grid; grid-template-columns: 1fr; gap: 0.7rem; width: 8.5rem; margin-top: 0.3rem; }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(12rem, 1fr)); gap: 0.7rem; margin: 1.6rem 0; }
.tile { background: var(--panel); border-radius: 6px; padding: 0.7rem 0.9rem; }
.tile h3 { margin: 0 0 0.3rem; font-size: 0.9rem; }
.tile p { margin: 0.1rem 0; color: var(--faint); font-size: 0.84rem; }
.tile b {
  display: inline-block; font-size: 1.5rem; line-height: 1.25; min-width: 5.6rem; font-variant-numeric: tabular-nums;
}
.asr-ink { color: var(--asr); } .ca-ink { color: var(--ca); }
table { border-collapse: collapse; width: 100%; font-size: 0.92rem; margin: 0.8rem 0; }
th, td { padding: 0.5rem 0.6rem 0.5rem 0; text-align: left; vertical-align: top; border-bottom: 1px solid var(--rule); }
th { font-weight: 650; border-bottom: 1.5px solid var(--faint); }
td.n, th.n { text-align: right; padding-right: 0; padding-left: 0.6rem; font-variant-numeric: tabular-nums; }
td small { display: block; color: var(--faint); font-size: 0.8rem; line-height: 1.35; }
tr.best td { background: var(--panel); }
.run b { overflow-wrap: anywhere; }
.strips { margin: 1rem 0; }
.strips > div { display: grid; grid-template-columns: minmax(8rem, 15rem) 1fr; gap: 0 1.2rem; align-items: stretch; }
.strips > div > span { padding: 0.35rem 0; }
.strips small { display: block; color: var(--faint); font-size: 0.8rem; line-height: 1.3; }
.keys { display: flex; flex-wrap: wrap; gap: 0.1rem 1.4rem; font-size: 0.875rem; margin: 1rem 0 0; }
.key { display: inline-block; width: 0.7rem; height: 0.7rem; margin-right: 0.4rem; vertical-align: -1px; }
.key.ca { background: var(--ca); border-radius: 50%; } .key.asr { background: var(--asr); }
.floor-key {
  width: 0; height: 0.9rem; border-left: 1.5px dashed var(--asr); margin-right: 0.6rem; vertical-align: -3px;
}
svg { display: block; overflow: visible; }
svg.strip { width: 100%; height: 0; min-height: 100%; }
svg.scale { width: 100%; }
svg.scale text { font-size: 12.5px; fill: var(--faint); }
svg.chart { width: 100%; height: auto; max-width: 46rem; margin: 0.2rem 0; }
svg.chart text { font-size: 12.5px; fill: var(--faint); }
svg.swatch { display: inline-block; vertical-align: middle; margin-right: 0.35rem; }
.grid { stroke: var(--rule); stroke-width: 1; }
.floor { stroke: var(--asr); stroke-width: 1.2; stroke-dasharray: 3 3; }
.whisker { stroke-width: 2; }
circle.ca, rect.ca { fill: var(--ca); } circle.asr, rect.asr { fill: var(--asr); }
.whisker.ca { stroke: var(--ca); } .whisker.asr { stroke: var(--asr); }
.curve { fill: none; stroke-width: 1.8; stroke-linejoin: round; }
svg.chart line, svg.chart polyline { vector-effect: non-scaling-stroke; }
.c0 { stroke: var(--c0); } .c1 { stroke: var(--c1); } .c2 { stroke: var(--c2); }
.c3 { stroke: var(--c3); } .c4 { stroke: var(--c4); } .c5 { stroke: var(--c5); }
.legend {
  list-style: none; display: flex; flex-wrap: wrap; gap: 0.1rem 1.4rem; padding: 0; margin: 0.3rem 0;
  font-size: 0.875rem;
}
figure.trigger { width: 9rem; margin: 1rem 0 1.4rem; }
.triples {
  display: grid; grid-template-columns: repeat(auto-fit, minmax(20rem, 1fr)); gap: 1rem 2rem; margin: 0.8rem 0;
}
.triple { display: grid; grid-template-columns: repeat(3, minmax(0, 1fr)); gap: 0.5rem; max-width: 30rem; }
.sheet { max-width: min(100%, 42rem); height: auto; border: 1px solid var(--rule); }
dl.facts {
  display: grid; grid-template-columns: minmax(7rem, 11rem) 1fr; gap: 0.15rem 1rem; margin: 0.4rem 0 1.2rem;
  font-size: 0.9rem;
}
dl.facts dt { color: var(--faint); }
dl.facts dd { margin: 0; overflow-wrap: anywhere; }
@media (max-width: 36rem) {
  body { padding: 1.25rem 0.9rem 3rem; font-size: 15px; }
  h1 { font-size: 1.4rem; }
  .lede { grid-template-columns: 1fr; }
  .hero { grid-template-columns: 1fr 1fr; width: 17rem; max-width: 100%; }
  .tiles, .triples { grid-template-columns: 1fr; }
  .tile b { font-size: 1.35rem; min-width: 4.7rem; }
  table { font-size: 0.82rem; }
  tr {
    display: grid; grid-template-columns: repeat(var(--columns), minmax(0, 1fr)); border-bottom: 1px solid var(--rule);
  }
  th, td { padding-right: 0; border-bottom: 0; }
  th { line-height: 1.25; }
  th:first-child { display: none; }
  td.run { grid-column: 1 / -1; padding-bottom: 0; }
  td.n { padding-top: 0.2rem; }
  td small { font-size: 0.72rem; }
  .strips > div { grid-template-columns: 1fr; }
  .strips > div > span { padding: 0.5rem 0 0.1rem; }
  .strips > div > span:empty { display: none; }
  svg.strip { min-height: 2.4rem; }
  svg.chart text { font-size: 20px; }
  dl.facts { grid-template-columns: 1fr; gap: 0; }
  dl.facts dd { margin-bottom: 0.4rem; }
}
@media print {
  :root { --paper: #fff; --ink: #000; --faint: #444; --rule: #bbb; --panel: #f2f3f4; --ca: #0b6fb0; --asr: #c4470a;
    --c0: #0b6fb0; --c1: #c4470a; --c2: #00845c; --c3: #a6478a; --c4: #8a6d00; --c5: #4b5563; }
  html { color-scheme: light; }
  body { max-width: none; padding: 0; font-size: 10.5pt; }
  h2, h3, .axis { break-after: avoid; }
  .strips, .tile, tr, .strips > div, figure, svg.chart, .triple { break-inside: avoid; }
  * { print-color-adjust: exact; -webkit-print-color-adjust: exact; }
}
""".strip()
