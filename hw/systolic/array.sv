// The array of hw/systolic/array.py as loops, which a simulator makes vector instructions of.
//
// The same ports and cycles: `x[k]` is what entered k + 1 cycles ago, and pair p works with
// x[p + NEAR]. One block assigns everything, the end of the pipeline first, so that each stage reads
// what stood in front of it before the edge. 16 bits hold a product: -128 * 255 is the largest.
// No register has a reset.

module weft_systolic_array #(
    parameter ROWS = 4,
    parameter COLUMNS = 4,
    parameter WORD_BYTES = 4,
    parameter SPARSE = 0,
    parameter INT4 = 0,
    parameter SCALES = 0,
    parameter DECODER = 0,
    parameter LATENCY = 7
) (
    input clk,
    input [8*ROWS*(1+SPARSE)-1:0] activation,
    input is_unsigned,
    input is_sparse,
    input swap,
    input is_high,
    input is_low,
    input is_scaled,
    input rounds,
    input [8*COLUMNS-1:0] scale,
    input [8*COLUMNS-1:0] offset,
    input entry_valid,
    input entry_first,
    input entry_by_column,
    input entry_two_rows,
    input [8*WORD_BYTES-1:0] entry_word,
    input [8*COLUMNS-1:0] entry_word_1,
    input [4*COLUMNS-1:0] entry_index,
    output reg [32*COLUMNS-1:0] psum
);
    localparam PAIRS = ROWS / 2;
    localparam LANES = SPARSE ? 4 : 2;  // operands of a pair
    localparam NEAR = SPARSE ? 2 : 1;
    localparam DEPTH = PAIRS + NEAR;
    localparam NARROW = 12 + $clog2(ROWS);  // bits of a sum of INT4 weights
    localparam ROW_SUM = 9 + $clog2(ROWS);

    // What travels.
    wire [15:0] entering[LANES*PAIRS];
    logic [15:0] operand[DEPTH][LANES*PAIRS];
    logic [8*WORD_BYTES-1:0] word[DEPTH];
    logic [8*COLUMNS-1:0] word_1[NEAR+1];
    logic [4*COLUMNS-1:0] index[2];
    logic [COLUMNS-1:0] column_capture[DEPTH];
    logic [ROWS-1:0] row_capture[NEAR+1];
    logic [DEPTH-1:0] swaps;
    logic [LATENCY-2:0] highs, lows, scaleds, roundeds;
    logic signed [31:0] row_sum[LATENCY-1];
    logic [COLUMNS-1:0] column_position;
    logic [ROWS-1:0] row_position;

    // What stays.
    logic [15:0] shadow_index[ROWS][COLUMNS];
    logic [15:0] active_index[ROWS][COLUMNS];
    logic [15:0] shadow[ROWS][COLUMNS];
    logic [15:0] b[ROWS][COLUMNS];
    logic [15:0] a[ROWS][COLUMNS];
    logic signed [15:0] product[ROWS][COLUMNS];
    logic signed [31:0] sum[PAIRS][COLUMNS];
    logic signed [31:0] held[COLUMNS];
    logic signed [31:0] value[COLUMNS];

    for (genvar i = 0; i < LANES * PAIRS; i++) begin
        // Without 2:4, pair p takes bytes 2p and 2p + 1; a pair with indices of 0 takes two of four.
        wire [7:0] sparse = activation[8*i+:8];
        wire [7:0] dense = activation[8*(SPARSE&&i%4<2?i/4*2+i%2:i)+:8];
        wire [7:0] chosen = is_sparse ? sparse : dense;
        assign entering[i] = {{8{chosen[7] & ~is_unsigned}}, chosen};
    end

    int unsigned c, k, near, p, r;
    logic [15:0] first, second, third;
    logic signed [31:0] total;

    always @(posedge clk) begin
        // Sums.
        if (!SCALES) for (c = 0; c < COLUMNS; c++) value[c] = sum[PAIRS-1][c];
        if (DECODER && lows[LATENCY-2] && (SCALES && scaleds[LATENCY-2] || roundeds[LATENCY-2]))
            for (c = 0; c < COLUMNS; c++)
                psum[32*c+:32] <= held[c] + ((value[c] + 128) >>> 8);
        else
            for (c = 0; c < COLUMNS; c++)
                psum[32*c+:32] <= value[c] + (DECODER && lows[LATENCY-2] ? held[c] << 8 : 0);
        if (DECODER && highs[LATENCY-2]) for (c = 0; c < COLUMNS; c++) held[c] = value[c];
        if (SCALES && scaleds[LATENCY-3])
            for (c = 0; c < COLUMNS; c++)
                value[c] = $signed({24'b0, scale[8*c+:8]}) * 32'($signed(sum[PAIRS-1][c][NARROW-1:0])) +
                    ((32'($signed(offset[8*c+:8])) * row_sum[LATENCY-3]) << 3);
        else if (SCALES) for (c = 0; c < COLUMNS; c++) value[c] = sum[PAIRS-1][c];
        for (p = PAIRS - 1; p > 0; p--)
            for (c = 0; c < COLUMNS; c++)
                sum[p][c] = sum[p-1][c] + product[2*p][c] + product[2*p+1][c];
        for (c = 0; c < COLUMNS; c++) sum[0][c] = product[0][c] + product[1][c];

        // Products, and their operands.
        for (r = 0; r < ROWS; r++)
            for (c = 0; c < COLUMNS; c++) product[r][c] = a[r][c] * b[r][c];
        for (r = 0; r < ROWS; r++)
            if (swaps[(r>>1)+NEAR]) for (c = 0; c < COLUMNS; c++) b[r][c] = shadow[r][c];
        for (r = 0; r < ROWS; r++) begin
            near = (r >> 1) + NEAR;
            k = SPARSE ? 2 * r - (r & 1) : r;
            first = operand[near][k];
            second = SPARSE ? operand[near][k+1] : first;
            third = SPARSE ? operand[near][k+2] : first;
            for (c = 0; c < COLUMNS; c++)
                a[r][c] = active_index[r][c][1] ? third : active_index[r][c][0] ? second : first;
        end

        // Weights and indices that enter.
        for (r = 0; r < ROWS; r++) begin
            near = (r >> 1) + NEAR;
            if (row_capture[NEAR][r])
                for (c = 0; c < COLUMNS; c++)
                    if (INT4 && r & 1) shadow[r][c] = 16'($signed(word_1[NEAR][8*c+:8]));
                    else shadow[r][c] = 16'($signed(word[NEAR][8*c+:8]));
            else if (column_capture[near] != 0)
                for (c = 0; c < COLUMNS; c++)
                    if (column_capture[near][c]) shadow[r][c] = 16'($signed(word[near][8*r+:8]));
        end
        for (r = 0; r < ROWS; r++)
            if (SPARSE) begin
                near = (r >> 1) + 1;
                if (swaps[near])
                    for (c = 0; c < COLUMNS; c++) active_index[r][c] = shadow_index[r][c];
                if (row_capture[1][r])
                    for (c = 0; c < COLUMNS; c++)
                        shadow_index[r][c] = 16'(index[1][2*((r&1)*COLUMNS+c)+:2]);
                else if (column_capture[near] != 0)
                    for (c = 0; c < COLUMNS; c++)
                        if (column_capture[near][c]) shadow_index[r][c] = 0;
            end

        // What travels moves on, and enters.
        for (k = DEPTH - 1; k > 0; k--) begin
            for (c = 0; c < LANES * PAIRS; c++) operand[k][c] = operand[k-1][c];
            word[k] = word[k-1];
            column_capture[k] = column_capture[k-1];
        end
        for (k = NEAR; k > 0; k--) begin
            word_1[k] = word_1[k-1];
            row_capture[k] = row_capture[k-1];
        end
        for (c = 0; c < LANES * PAIRS; c++) operand[0][c] = entering[c];
        word[0] = entry_word;
        word_1[0] = entry_word_1;
        index[1] = index[0];
        index[0] = entry_index;
        swaps = {swaps[DEPTH-2:0], swap};
        if (SCALES) begin
            for (k = LATENCY - 2; k > 0; k--) row_sum[k] = row_sum[k-1];
            total = 0;
            for (r = 0; r < ROWS; r++)
                total = total + 32'($signed(entering[SPARSE?2*r-(r&1):r]));
            row_sum[0] = total;
        end
        scaleds = {scaleds[LATENCY-3:0], is_scaled};
        roundeds = {roundeds[LATENCY-3:0], rounds};
        highs = {highs[LATENCY-3:0], is_high};
        lows = {lows[LATENCY-3:0], is_low};
        column_capture[0] = 0;
        row_capture[0] = 0;
        if (entry_valid) begin
            column_position = entry_first ? 1 : column_position << 1;
            if (INT4 && entry_two_rows) row_position = entry_first ? 3 : row_position << 2;
            else row_position = entry_first ? 1 : row_position << 1;
            if (entry_by_column) column_capture[0] = column_position;
            else row_capture[0] = row_position;
        end
    end
endmodule
