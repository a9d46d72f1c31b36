"""Private interfaces of other libraries, each with the test that fails when the library changes."""
