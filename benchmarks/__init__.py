"""One command for each figure in docs/performance.md and docs/reliability.md."""
