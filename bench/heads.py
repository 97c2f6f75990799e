"""The heads that the parsing and editing rooms are timed with; the browser's is the load instrument's."""

SMALL = b"GET / HTTP/1.1\r\nHost: 127.0.0.1:9101\r\n\r\n"

API = (
    b"GET /api/v1/orders/4711?expand=items HTTP/1.1\r\nHost: orders.example\r\n"
    b"User-Agent: client/2.4\r\nAccept: application/json\r\nAuthorization: Bearer 0123456789abcdef\r\n\r\n"
)

BROWSER = (
    b"GET / HTTP/1.1\r\nHost: 127.0.0.1:9101\r\n"
    b"User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0\r\n"
    b"Accept: text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8\r\n"
    b"Accept-Language: en-GB,en;q=0.7,de;q=0.3\r\n"
    b"Accept-Encoding: gzip, deflate, br, zstd\r\n"
    b"Referer: https://www.example.org/catalogue/items?page=2&sort=price\r\n"
    b"Cookie: session=7f3a9c51d2e84b06; theme=dark; consent=yes; basket=b-20931; lang=en\r\n"
    b"Upgrade-Insecure-Requests: 1\r\n"
    b"Sec-Fetch-Dest: document\r\nSec-Fetch-Mode: navigate\r\nSec-Fetch-Site: same-origin\r\n"
    b"Priority: u=0, i\r\n\r\n"
)

RESPONSE = (
    b"HTTP/1.1 200 OK\r\nServer: lgb\r\nDate: Thu, 01 Jan 2026 00:00:00 GMT\r\n"
    b"Content-Type: text/plain\r\nContent-Length: 560\r\n\r\n"
)

REQUESTS = {"small": SMALL, "api": API, "browser": BROWSER}
