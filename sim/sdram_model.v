// An SDR SDRAM with 16 data pins that checks its user.
//
// Commands are taken at the rising edge of clk; dq_out is what the pins show after an edge, so a
// READ taken at edge k can be captured at edge k + CAS latency. dq is split: dq_in with dq_in_en
// is the controller's side, dq_out with dq_out_en this side.
//
// Every rule has a parameter, in cycles. `violations` counts what was broken, `first_code` names
// the first of them. A row that was not refreshed in time loses its contents for good. Words that
// were never written hold a hash of their address.
//
// Not modelled, and reported as UNSUPPORTED: auto precharge, burst stop, interleaved or full page
// bursts, single writes, power-down, self refresh.

/* verilator lint_off BLKSEQ */
/* verilator lint_off WIDTH */
/* verilator lint_off UNUSED */

module sdram_model #(
    parameter BANK_BITS = 2,
    parameter ROW_BITS = 13,
    parameter COLUMN_BITS = 9,
    parameter T_RCD = 3,
    parameter T_RP = 3,
    parameter T_RAS = 5,
    parameter T_RAS_MAX = 10000,
    parameter T_RC = 7,
    parameter T_RFC = 7,
    parameter T_RRD = 2,
    parameter T_WR = 2,
    parameter T_MRD = 2,
    parameter T_HZ = 1,             // cycles that dq must be free between a read and a write
    parameter T_POWER_UP = 20000,
    parameter T_RETENTION = 6400000,
    parameter POWER_UP_REFRESHES = 8
) (
    input wire clk,
    input wire off,                 // forget all but the contents
    input wire cke,
    input wire cs_n,
    input wire ras_n,
    input wire cas_n,
    input wire we_n,
    input wire [1:0] ba,
    input wire [12:0] a,
    input wire [1:0] dqm,
    input wire [15:0] dq_in,
    input wire dq_in_en,
    output reg [15:0] dq_out,
    output reg dq_out_en,
    output reg [31:0] violations,
    output reg [4:0] first_code,
    output reg [31:0] refreshes
);

    // Codes of violations.
    localparam POWER_UP = 1;         // a command before T_POWER_UP
    localparam INITIALISATION = 2;   // use before precharge, refreshes and mode register
    localparam MODE = 3;             // mode register with a bank open
    localparam BANK_OPEN = 4;        // activate of an open bank
    localparam BANK_CLOSED = 5;      // read or write of a closed bank
    localparam REFRESH_OPEN = 6;     // refresh with a bank open
    localparam RCD = 7;
    localparam RP = 8;
    localparam RAS = 9;
    localparam RAS_MAX = 10;
    localparam RC = 11;
    localparam RFC = 12;
    localparam RRD = 13;
    localparam WR = 14;
    localparam MRD = 15;
    localparam CONTENTION = 16;      // both sides drive dq, or change over too quickly
    localparam UNDRIVEN = 17;        // nobody drives dq where a word is written
    localparam RETENTION = 18;       // a row was refreshed or opened too late: it has lost its data
    localparam UNSUPPORTED = 19;
    localparam ADDRESS = 20;         // address or bank beyond the part

    localparam BANKS = 1 << BANK_BITS;
    localparam ROWS = 1 << ROW_BITS;
    localparam COLUMNS = 1 << COLUMN_BITS;
    localparam ROW_ADDRESS_BITS = BANK_BITS + ROW_BITS;
    localparam ADDRESS_BITS = ROW_ADDRESS_BITS + COLUMN_BITS;

    reg [15:0] cells [0:(1 << ADDRESS_BITS) - 1] /*verilator public_flat_rw*/;  // row, bank, column
    reg [31:0] restored [0:(1 << ROW_ADDRESS_BITS) - 1];  // when a row was last refreshed or open

    // Times of the latest events. Everything before the start counts as long ago.
    localparam START = 32'h00100000;
    reg [31:0] now;
    reg [31:0] activated [0:3];
    reg [31:0] precharged [0:3];
    reg [31:0] written [0:3];
    reg [31:0] any_activated, any_refreshed, mode_set, drove;

    reg [3:0] open;
    reg [ROW_BITS-1:0] open_row [0:3];
    reg [ROW_BITS-1:0] refresh_row;
    reg precharged_all, ready;
    reg [4:0] power_up_refreshes;
    reg [3:0] burst_length;
    reg [2:0] latency;

    // The burst in progress.
    reg [3:0] left;
    reg writing;
    reg [1:0] bank;
    reg [COLUMN_BITS-1:0] column;

    // Words on their way out: stage 0 is the next to leave.
    reg [15:0] word_0, word_1;
    reg valid_0, valid_1;
    reg [1:0] masked;

    // Work of one edge.
    reg [15:0] word, leaving;
    reg word_valid;
    reg [ADDRESS_BITS-1:0] address;
    reg [31:0] found;
    reg [4:0] code;
    integer i, b;

    wire [3:0] command = {cs_n, ras_n, cas_n, we_n};
    localparam MODE_REGISTER = 4'b0000, REFRESH = 4'b0001, PRECHARGE = 4'b0010, ACTIVATE = 4'b0011,
        WRITE = 4'b0100, READ = 4'b0101, STOP = 4'b0110;

    task violate(input [4:0] why);
        begin
            if (found == 0) code = why;
            found = found + 1;
        end
    endtask

    task least(input [31:0] since, input [31:0] cycles, input [4:0] why);
        if (now - since < cycles) violate(why);
    endtask

    task close(input integer which);
        begin
            if (open[which]) begin
                least(activated[which], T_RAS, RAS);
                least(written[which], T_WR, WR);
                open[which] = 0;
                precharged[which] = now;
                restored[{open_row[which], which[BANK_BITS-1:0]}] = now;
            end
            if (bank == which) left = 0;
        end
    endtask

    task restore(input [ROW_BITS-1:0] row, input [BANK_BITS-1:0] which);
        begin
            if (now - restored[{row, which}] > T_RETENTION) begin
                violate(RETENTION);
                for (i = 0; i < COLUMNS; i = i + 1) begin
                    address = {row, which, i[COLUMN_BITS-1:0]};
                    cells[address] = cells[address] ^ 16'h5AA5;
                end
            end
            restored[{row, which}] = now;
        end
    endtask

    task switch_on;
        begin
            now = START;
            for (i = 0; i < (1 << ROW_ADDRESS_BITS); i = i + 1) restored[i] = START;
            for (i = 0; i < 4; i = i + 1) begin
                activated[i] = 0;
                precharged[i] = 0;
                written[i] = 0;
                open_row[i] = 0;
            end
            any_activated = 0; any_refreshed = 0; mode_set = 0; drove = 0;
            open = 0; refresh_row = 0; precharged_all = 0; ready = 0; power_up_refreshes = 0;
            burst_length = 1; latency = 3;
            left = 0; writing = 0; bank = 0; column = 0;
            word_0 = 0; word_1 = 0; valid_0 = 0; valid_1 = 0; masked = 0;
            dq_out <= 16'hDEAD; dq_out_en <= 0;
            violations <= 0; first_code <= 0; refreshes <= 0;
        end
    endtask

    initial begin
        for (i = 0; i < (1 << ADDRESS_BITS); i = i + 1) cells[i] = i * 40503 + 12345;
        switch_on;
    end

    always @(posedge clk) if (off) switch_on;
    else begin
        found = 0;
        code = 0;

        // What was on the pins up to this edge.
        if (dq_out_en) drove = now;
        if (dq_in_en && now - drove <= T_HZ) violate(CONTENTION);

        for (b = 0; b < BANKS; b = b + 1)
            if (open[b] && now - activated[b] == T_RAS_MAX + 1) violate(RAS_MAX);

        if (!cke && now - START >= T_POWER_UP) violate(UNSUPPORTED);
        if (cke && !cs_n && command != 4'b0111) begin
            least(START, T_POWER_UP, POWER_UP);
            least(any_refreshed, T_RFC, RFC);
            least(mode_set, T_MRD, MRD);
            if (!ready && (command == ACTIVATE || command == READ || command == WRITE))
                violate(INITIALISATION);
            if (ba >> BANK_BITS) violate(ADDRESS);

            case (command)
                MODE_REGISTER: begin
                    if (open != 0) violate(MODE);
                    for (b = 0; b < BANKS; b = b + 1) least(precharged[b], T_RP, RP);
                    if (!precharged_all || power_up_refreshes < POWER_UP_REFRESHES)
                        violate(INITIALISATION);
                    if (ba != 0 || a[12:7] != 0 || a[6:5] != 2'b01 || a[3:2] != 2'b00)
                        violate(UNSUPPORTED);
                    burst_length = 1 << a[1:0];
                    latency = a[6:4];
                    mode_set = now;
                    // Nothing can have been written before.
                    if (!ready)
                        for (i = 0; i < (1 << ROW_ADDRESS_BITS); i = i + 1) restored[i] = now;
                    ready = 1;
                end
                REFRESH: begin
                    if (open != 0) violate(REFRESH_OPEN);
                    if (!precharged_all) violate(INITIALISATION);
                    for (b = 0; b < BANKS; b = b + 1) begin
                        least(precharged[b], T_RP, RP);
                        least(activated[b], T_RC, RC);
                        restore(refresh_row, b[BANK_BITS-1:0]);
                    end
                    refresh_row = refresh_row + 1;
                    any_refreshed = now;
                    refreshes <= refreshes + 1;
                    if (power_up_refreshes != 31) power_up_refreshes = power_up_refreshes + 1;
                end
                PRECHARGE: begin
                    if (a[10]) begin
                        for (b = 0; b < BANKS; b = b + 1) close(b);
                        precharged_all = 1;
                    end else close(ba);
                end
                ACTIVATE: begin
                    if (open[ba]) violate(BANK_OPEN);
                    if (a >> ROW_BITS) violate(ADDRESS);
                    least(precharged[ba], T_RP, RP);
                    least(activated[ba], T_RC, RC);
                    least(any_activated, T_RRD, RRD);
                    restore(a[ROW_BITS-1:0], ba[BANK_BITS-1:0]);
                    open[ba] = 1;
                    open_row[ba] = a[ROW_BITS-1:0];
                    activated[ba] = now;
                    any_activated = now;
                end
                READ, WRITE: begin
                    if (!open[ba]) violate(BANK_CLOSED);
                    least(activated[ba], T_RCD, RCD);
                    if (a[10]) violate(UNSUPPORTED);
                    if ({a[12:11], a[9:0]} >> COLUMN_BITS) violate(ADDRESS);
                    left = open[ba] ? burst_length : 0;
                    writing = command == WRITE;
                    bank = ba;
                    column = a[COLUMN_BITS-1:0];
                end
                STOP: violate(UNSUPPORTED);
                default: ;
            endcase
        end

        // One word of the burst. Columns wrap inside an aligned group of the burst's length.
        word = 16'hDEAD;
        word_valid = 0;
        if (left != 0) begin
            address = {open_row[bank], bank[BANK_BITS-1:0], column};
            if (writing) begin
                if (!dq_in_en) violate(UNDRIVEN);
                if (!dqm[0]) cells[address][7:0] = dq_in[7:0];
                if (!dqm[1]) cells[address][15:8] = dq_in[15:8];
                written[bank] = now;
            end else begin
                word = cells[address];
                word_valid = 1;
            end
            column = (column & ~(burst_length - 1)) | ((column + 1) & (burst_length - 1));
            left = left - 1;
        end

        // Reads leave after the CAS latency; dqm hides them two cycles after it was given.
        leaving = latency == 3 ? word_1 : word_0;
        if (masked[0]) leaving[7:0] = 8'hAD;
        if (masked[1]) leaving[15:8] = 8'hDE;
        dq_out <= leaving;
        dq_out_en <= (latency == 3 ? valid_1 : valid_0) && masked != 2'b11;
        word_1 = word_0;
        valid_1 = valid_0;
        word_0 = word;
        valid_0 = word_valid;
        masked = dqm;

        if (first_code == 0) first_code <= code;
        violations <= violations + found;
        now = now + 1;
    end
endmodule
