"""Single-purpose modules between the nets and the files, each named for the one thing it does."""
