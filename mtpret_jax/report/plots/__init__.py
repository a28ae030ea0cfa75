"""The plots of a page, drawn by matplotlib as inline SVG. Each function returns a `blocks.Plot`."""
