"""The style sheet of report.html: two schemes, one set of names."""

CSS = """
:root {
  --page: #fbfaf8; --card: #ffffff; --ink: #1d2329; --soft: #66707a; --rule: #e4e2dd;
  --base: #7a828a; --control: #9aa3ab; --self: #2f7fb8; --round: #d4622a;
  --oracle: #2e8b62; --up: #2e8b62; --down: #c23b4b; --wash: #f3f1ec;
  --heat: 75%; --s0: #2273b0; --s1: #cc5a22; --s2: #25845a; --s3: #8a4fb5;
  --s4: #b3264e; --s5: #8a6d14; --s6: #157f8c; --s7: #5b6570;
}
@media (prefers-color-scheme: dark) {
  :root {
    --page: #14171a; --card: #1b1f23; --ink: #e6e8ea; --soft: #97a1aa; --rule: #2c3238;
    --base: #98a1a9; --control: #7b858e; --self: #5aa9dd; --round: #f08a53;
    --oracle: #55b98a; --up: #55b98a; --down: #ef6f7d; --wash: #22272c;
    --heat: 55%; --s0: #5fb0e6; --s1: #f2915c; --s2: #5cc596; --s3: #c294ea;
    --s4: #f27a9a; --s5: #d9b84a; --s6: #55c3d1; --s7: #a9b3bd;
  }
}
* { box-sizing: border-box; }
body {
  margin: 0; background: var(--page); color: var(--ink);
  font: 15px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif;
}
main { max-width: 940px; margin: 0 auto; padding: 40px 20px 80px; }
h1 { font-size: 30px; line-height: 1.2; margin: 0; letter-spacing: -0.02em; }
h2 { font-size: 19px; margin: 0 0 2px; letter-spacing: -0.01em; }
h3 { font-size: 15px; margin: 20px 0 6px; }
h4 {
  font-size: 12px; margin: 16px 0 4px; color: var(--soft); font-weight: 600;
  text-transform: uppercase; letter-spacing: 0.05em;
}
section {
  background: var(--card); border: 1px solid var(--rule); border-radius: 10px;
  padding: 20px 24px; margin-top: 20px;
}
.note { color: var(--soft); font-size: 13.5px; margin: 0 0 14px; }
code, pre { font-family: ui-monospace, "SF Mono", Menlo, Consolas, monospace; }
code { font-size: 0.92em; }
pre {
  font-size: 13px; line-height: 1.5; background: var(--wash); border-radius: 6px;
  padding: 10px 12px; margin: 4px 0; white-space: pre-wrap; overflow-wrap: anywhere;
}
.tiles { display: flex; flex-wrap: wrap; gap: 8px 36px; margin-top: 18px; }
.tile b { display: block; font-size: 22px; font-variant-numeric: tabular-nums; }
.tile span { color: var(--soft); font-size: 13px; }
.scroll { overflow-x: auto; }
.scroll > svg { min-width: 640px; }
table { border-collapse: collapse; width: 100%; font-size: 14px; margin: 6px 0; }
th {
  color: var(--soft); font-weight: 500; font-size: 12.5px; text-align: right;
  border-bottom: 1px solid var(--rule); padding: 5px 10px; white-space: nowrap;
}
td {
  text-align: right; padding: 5px 10px; border-bottom: 1px solid var(--rule);
  font-variant-numeric: tabular-nums; vertical-align: middle;
}
tr:last-child td { border-bottom: 0; }
th:first-child, td:first-child { text-align: left; padding-left: 0; }
.pairs td { white-space: nowrap; }
.pairs td:nth-child(2) { min-width: 200px; padding: 0 4px; }
.answers th, .answers td { text-align: left; vertical-align: top; }
.answers td:nth-child(1), .answers td:nth-child(3) { min-width: 150px; }
.facts { width: auto; min-width: 260px; }
.facts thead { display: none; }
details > summary { cursor: pointer; color: var(--soft); font-size: 13.5px; }
.edit { border-top: 1px solid var(--rule); padding: 9px 0; }
.edit > summary { color: var(--ink); font-size: 15px; }
.edit > summary .note { margin: 0 0 0 8px; }
.edit[open] > summary { margin-bottom: 8px; }
.edit ul { margin: 4px 0; padding-left: 20px; overflow-wrap: anywhere; }
.chip {
  font-size: 11.5px; color: var(--round); border: 1px solid currentColor;
  border-radius: 9px; padding: 0 7px; margin-left: 4px;
}
.yes { color: var(--up); font-weight: 700; }
.no { color: var(--down); font-weight: 700; }
.grid3 {
  display: grid; gap: 12px 20px; margin-top: 10px;
  grid-template-columns: repeat(auto-fill, minmax(220px, 1fr));
}
.grid2 {
  display: grid; gap: 18px 24px; margin-top: 12px;
  grid-template-columns: repeat(auto-fill, minmax(min(300px, 100%), 1fr));
}
figure { margin: 0; }
figcaption { font-size: 13px; color: var(--soft); overflow-wrap: anywhere; }
figcaption b { color: var(--ink); }
svg { display: block; width: 100%; height: auto; overflow: visible; }
svg text { font: 13px system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; }
svg .label { fill: var(--ink); }
svg .value { fill: var(--ink); font-variant-numeric: tabular-nums; }
svg .tick { fill: var(--soft); font-size: 11.5px; }
svg .end { text-anchor: end; }
svg .middle { text-anchor: middle; }
svg .grid { stroke: var(--rule); }
svg .ref { stroke: var(--soft); stroke-dasharray: 3 3; }
svg .mean { stroke: var(--ink); stroke-width: 1.5; }
svg g { --c: var(--control); }
svg .k-base { --c: var(--base); }
svg .k-self { --c: var(--self); }
svg .k-round { --c: var(--round); }
svg .k-oracle { --c: var(--oracle); }
svg .k-up { --c: var(--up); }
svg .k-down { --c: var(--down); }
svg .plain { --c: var(--self); }
svg .dot, svg .bar { fill: var(--c); }
svg .thick { stroke: var(--c); stroke-width: 4; stroke-linecap: round; }
svg .thin { stroke: var(--c); stroke-width: 1.3; }
svg .path { fill: none; stroke: var(--self); stroke-width: 1.6; }
svg .pale { fill: var(--c); opacity: 0.3; }
svg .s0 { --c: var(--s0); } svg .s1 { --c: var(--s1); } svg .s2 { --c: var(--s2); }
svg .s3 { --c: var(--s3); } svg .s4 { --c: var(--s4); } svg .s5 { --c: var(--s5); }
svg .s6 { --c: var(--s6); } svg .s7 { --c: var(--s7); }
svg .stroke { fill: none; stroke: var(--c); stroke-width: 2; }
svg .dashed .stroke { stroke-dasharray: 5 4; }
svg .dashed .dot { fill: var(--card); stroke: var(--c); stroke-width: 1.5; }
svg .band { fill: var(--c); opacity: 0.14; }
svg .name { fill: var(--c); font-size: 12.5px; }
svg .cool .cell { --h: var(--self); }
svg .warm .cell { --h: var(--down); }
svg .cell {
  fill: color-mix(in srgb, var(--h) calc(var(--s) * var(--heat)), var(--card));
  stroke: var(--rule);
}
.tint {
  display: inline-block; min-width: 3.4em; padding: 0 5px; border-radius: 4px;
  background: color-mix(in srgb, var(--self) calc(var(--s) * 45%), transparent);
}
.close th, .close td { padding: 5px 7px; white-space: nowrap; }
.close th { line-height: 1.3; vertical-align: bottom; }
.close th:first-child, .close td:first-child { padding-left: 0; }
.close .tint { min-width: 0; }
.reasons td { white-space: nowrap; }
.reasons td:last-child { white-space: normal; }
.reasons td:last-child { text-align: left; min-width: 150px; color: var(--soft); }
.reasons th:last-child { text-align: left; }
details + details, .scroll + details { margin-top: 8px; }
.legend, .legend .colour, .pair, .row { display: flex; flex-wrap: wrap; }
.legend { gap: 4px 14px; font-size: 12.5px; color: var(--soft); margin: 0; }
.legend .colour { gap: 5px; align-items: center; }
.task { border-top: 1px solid var(--rule); margin-top: 18px; }
.task h3 { margin: 12px 0 0; }
.row { gap: 10px 14px; margin: 10px 0; align-items: flex-start; }
.row > figure { max-width: 380px; }
.arms {
  display: grid; gap: 12px 16px; margin: 12px 0;
  grid-template-columns: repeat(auto-fill, minmax(160px, 1fr));
}
.arms .note { font-size: 12.5px; margin: 4px 0 0; }
.asked { border-left: 3px solid var(--rule); padding-left: 12px; }
.pair { gap: 6px 10px; align-items: center; margin-top: 4px; color: var(--soft); }
.pair .note { margin: 0; }
.pair > .note:first-child { flex-basis: 100%; }
.guess { display: inline-flex; flex-direction: column; align-items: center; }
.guess svg { outline: 2px dotted var(--down); outline-offset: 2px; margin: 3px; }
.guess.right svg { outline: 2px solid var(--up); }
svg.cells { flex: none; max-width: 100%; shape-rendering: crispEdges; }
.cells .net { fill: none; stroke: #666; vector-effect: non-scaling-stroke; }
.cells rect { fill: var(--k); }
.cells g path { stroke: var(--k); }
.cells .c0 { --k: #000000; } .cells .c1 { --k: #0074d9; }
.cells .c2 { --k: #ff4136; } .cells .c3 { --k: #2ecc40; }
.cells .c4 { --k: #ffdc00; } .cells .c5 { --k: #aaaaaa; }
.cells .c6 { --k: #f012be; } .cells .c7 { --k: #ff851b; }
.cells .c8 { --k: #7fdbff; } .cells .c9 { --k: #870c25; }
@media print { section { break-inside: avoid; } body { background: none; } }
"""
