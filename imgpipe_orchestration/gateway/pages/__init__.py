"""The web pages: server-rendered HTML over the features' own functions.

`frame` renders a page within the layout and turns errors into pages, `filters` has the templates' filters, and `routes`
lists the pages; a module has the routes of one page, or of a few that belong together. Changes are made by HTML forms,
so every page works from the keyboard, all but `/upload` and `/docs` without scripts, and no browser holds a key.
"""
