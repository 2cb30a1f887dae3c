"""The web pages: server-rendered HTML over the features' own functions.

`frame` renders a page within the layout and turns errors into pages; `static` serves the style sheet and the scripts,
`events` the overview's live figures. Each other module is one page with its routes. Changes are made by HTML forms, so
every page works from the keyboard and without scripts, and no browser holds a key.
"""
