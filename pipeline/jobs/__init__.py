"""One function a command, which uses all other rooms."""
