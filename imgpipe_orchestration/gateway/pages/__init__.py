"""The pages that people look at: server-rendered HTML over the features' own functions.

`frame` renders a page within the layout and turns errors into pages; `static` serves the style and the few scripts,
`events` the overview's live figures. Each other module is one page with its routes. Whatever changes something is a
form that is posted here, so that every page works from the keyboard and no browser ever holds a key. Scripts only make
a page livelier.
"""
