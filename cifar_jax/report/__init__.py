"""HTML pages about one run or several, finished or not: `--mode=report`."""
