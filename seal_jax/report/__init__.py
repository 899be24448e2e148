"""Finished and running workdirs, and the released files, as tables and a page.

No jax: reads files only. `console` for a terminal, `html_page` for a browser; each
section of the page is a module of `sections`, its pictures of `charts`, and the small
commands stand in `commands`.
"""
