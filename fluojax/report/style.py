"""How the pages look: one column that fits a phone, tables that scroll."""

STYLE = """
body { margin: 0; background: #fff; color: #1c2024;
  font: 16px/1.5 system-ui, -apple-system, "Segoe UI", sans-serif; }
main { max-width: 60rem; margin: 0 auto; padding: 1rem; }
h1 { font-size: 1.5rem; line-height: 1.25; overflow-wrap: anywhere; }
h2 { font-size: 1.15rem; margin: 2rem 0 .5rem; border-bottom: 1px solid #d5d9dd; }
h3 { font-size: 1rem; margin: 1.25rem 0 .25rem; }
p { overflow-wrap: anywhere; }
.note { border-left: 4px solid #c26a00; background: #fff6e8; padding: .5rem .75rem; }
pre { background: #f3f5f7; padding: .75rem; overflow-x: auto; font-size: .85rem; }
.wide { overflow-x: auto; max-width: 100%; }
table { border-collapse: collapse; font-size: .9rem; }
th, td { padding: .25rem .75rem .25rem 0; text-align: left; vertical-align: top;
  border-bottom: 1px solid #e6e9ec; }
th { font-weight: 600; white-space: nowrap; }
td.n { font-variant-numeric: tabular-nums; white-space: nowrap; }
details { margin: .75rem 0; }
summary { cursor: pointer; color: #0b5cad; }
figure { margin: 1rem 0; }
figure img { display: block; max-width: 100%; height: auto; cursor: zoom-in; }
figcaption { font-size: .9rem; color: #555c63; }
figure input { position: absolute; opacity: 0; }
figure input:focus-visible + span { outline: 3px solid #0b5cad; display: block; }
figure input:checked + span { position: fixed; inset: 0; z-index: 1; overflow: auto;
  background: #111; display: block; }
figure input:checked + span img { max-width: none; margin: auto; cursor: zoom-out; }
@media (max-width: 40rem) {
  figure input:checked + span img { width: 250vw; }
}
@media print { details > * { display: block; } }
"""
