"""One HTML file for a run or a study: pictures inside, no script needed, nothing fetched from anywhere."""
