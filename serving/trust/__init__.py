"""Who may call, over which connection, and how often; `serving.interceptors` puts it before the work."""
