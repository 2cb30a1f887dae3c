"""The web components `<smart-image>` and `<ai-analysis-display>`, with which front ends show images and analyses.

They have no dependencies, and pages of any origin can import them from here; `react.js` gives them the React names of
the specification. A browser never holds MEDIA_API_KEY: `routes` answers with the public part of an analysis.
"""
