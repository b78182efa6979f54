"""Files and uploads of the API (`/v1/files`, `/v1/uploads`): bytes as they came, and what was made of them."""
