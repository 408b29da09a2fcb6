"""One HTML page that tells how a run went: numbers with their certainty, pictures, and what retrieval finds.

`page.build_report` makes it from what `material` gathers; `curves`, `plan_maps`, `ranks`, `volumes`, `space` and
`gallery` fill a section each. `charts` turns figures of matplotlib into SVG that follows the colours of the page. The
page's HTML, style and script lie in `templates`.
"""
