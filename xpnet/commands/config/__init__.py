"""The settings of ``xpnet train``: from words to values, and to the TOML file of a run.

An option is a field of `Config` in `settings`, with its default and its help. `types` has its type,
which reads its word; `filters` has what the types of convolutions share. Where the default is None,
`defaults` chooses by the number of samples. `checks` refuses impossible values, `toml` writes and
reads files, and `parsing` puts options, files and the settings of a resumed run together.
"""
