"""`<smart-image>` and `<ai-analysis-display>`: with these, front ends show images and their analyses.

Plain web components without dependencies, importable from here by a page of any origin; `react.js` gives them the
React names of the documents. A browser never holds MEDIA_API_KEY: `routes` answers with what may be public about an
image, and with the whole analysis to whoever shows a short-lived token that a server with the key has asked for.
"""
