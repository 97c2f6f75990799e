# The words that go with a status code on an HTTP/1 status line. They mean nothing; some clients want them there.

from libc.stdint cimport uint32_t

cdef extern from * nogil:
    """
    static const char* mc_status_phrase(unsigned status) {
        switch (status) {
        case 200: return "OK";                  case 201: return "Created";
        case 202: return "Accepted";            case 204: return "No Content";
        case 301: return "Moved Permanently";   case 302: return "Found";
        case 303: return "See Other";           case 304: return "Not Modified";
        case 307: return "Temporary Redirect";  case 308: return "Permanent Redirect";
        case 400: return "Bad Request";         case 401: return "Unauthorized";
        case 403: return "Forbidden";           case 404: return "Not Found";
        case 405: return "Method Not Allowed";  case 408: return "Request Timeout";
        case 409: return "Conflict";            case 410: return "Gone";
        case 413: return "Content Too Large";   case 414: return "URI Too Long";
        case 417: return "Expectation Failed";  case 418: return "I'm a teapot";
        case 421: return "Misdirected Request"; case 422: return "Unprocessable Content";
        case 426: return "Upgrade Required";    case 429: return "Too Many Requests";
        case 431: return "Request Header Fields Too Large";
        case 500: return "Internal Server Error"; case 501: return "Not Implemented";
        case 502: return "Bad Gateway";         case 503: return "Service Unavailable";
        case 504: return "Gateway Timeout";     case 505: return "HTTP Version Not Supported";
        case 508: return "Loop Detected";
        default:  return "";
        }
    }
    """
    const char* status_phrase "mc_status_phrase"(uint32_t status)
