"""One function a command: the only room where the others meet."""
