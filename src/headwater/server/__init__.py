"""The workbench's server: indexes asked over HTTP, by the app in a browser or by a script."""
