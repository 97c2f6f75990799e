# The Date of a response (RFC 9110 5.6.7, 6.6.1): Unix time as text. Keeps the last second's text; reads no clock.

from libc.stdint cimport int64_t, uint32_t, uint64_t
from libc.string cimport memcpy

cdef enum:
    DATE_LINE_BYTES = 37                # "date: Sun, 06 Nov 1994 08:49:37 GMT" CRLF
    DATE_DAY_S = 86400


cdef struct DateLine:                   # of one second; zeroed: of none
    uint64_t second
    char line[40]


cdef inline const char* date_line(DateLine* date, uint64_t second) noexcept nogil:
    """The whole line, DATE_LINE_BYTES of it, good until the next call."""
    if date.second != second or date.line[0] == 0:
        date.second = second
        date_write(date.line, second)
    return date.line


cdef inline void date_write(char* line, uint64_t second) noexcept nogil:
    # Days as a date of the Gregorian calendar, in years that begin in March, so that a leap day is a year's last.
    cdef int64_t days = <int64_t>(second // DATE_DAY_S)
    cdef uint32_t of_day = <uint32_t>(second % DATE_DAY_S)
    cdef int64_t shifted = days + 719468              # days since 1 March of the year 0
    cdef int64_t era = shifted // 146097              # of 400 years
    cdef int64_t of_era = shifted % 146097
    cdef int64_t year_of_era = (of_era - of_era // 1460 + of_era // 36524 - of_era // 146096) // 365
    cdef int64_t of_year = of_era - (365 * year_of_era + year_of_era // 4 - year_of_era // 100)
    cdef int64_t march_month = (5 * of_year + 2) // 153
    cdef uint32_t day = <uint32_t>(of_year - (153 * march_month + 2) // 5 + 1)
    cdef uint32_t month = <uint32_t>(march_month + 2) % 12        # January is 0
    cdef uint32_t year = <uint32_t>(year_of_era + era * 400 + (month < 2))
    cdef const char* day_names = "ThuFriSatSunMonTueWed"          # the epoch was a Thursday
    cdef const char* month_names = "JanFebMarAprMayJunJulAugSepOctNovDec"
    memcpy(line, "date: ", 6)
    memcpy(line + 6, day_names + 3 * (days % 7), 3)
    memcpy(line + 9, ", ", 2)
    date_two(line + 11, day)
    line[13] = 32
    memcpy(line + 14, month_names + 3 * month, 3)
    line[17] = 32
    date_two(line + 18, year // 100)
    date_two(line + 20, year % 100)
    line[22] = 32
    date_two(line + 23, of_day // 3600)
    line[25] = 58
    date_two(line + 26, of_day // 60 % 60)
    line[28] = 58
    date_two(line + 29, of_day % 60)
    memcpy(line + 31, " GMT\r\n", 6)


cdef inline void date_two(char* at, uint32_t number) noexcept nogil:
    at[0] = <char>(48 + number // 10)
    at[1] = <char>(48 + number % 10)
