"""report.html: the report as one file that can be mailed, with figures that answer to pointer and keyboard."""
