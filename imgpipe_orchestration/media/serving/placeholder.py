"""What is shown of an image that is not ready and that no browser could show."""

PLACEHOLDER = (
    b'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 300 300" role="img" aria-label="Being processed">'
    b'<rect width="300" height="300" fill="#8a8f98" fill-opacity=".25"/>'
    b'<circle cx="150" cy="150" r="36" fill="none" stroke="#8a8f98" stroke-width="8" stroke-dasharray="150 76"/></svg>'
)
